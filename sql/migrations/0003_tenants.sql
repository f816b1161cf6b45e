-- What pgworker knows of the outside: what it meant to make, what it made, the secrets
-- of tenants (encrypted before they come here), and which credentials are refused.

-- One row per client and thing to make, committed before the first request leaves: what it is
-- called, what was asked for, and its ref once that is known.
create table pgworker.intents (
    client_id uuid not null references public.clients (id) on delete restrict,
    kind text not null default 'tenant',
    provider text not null,
    name text not null,
    request jsonb not null default '{}',
    ref text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (client_id, kind)
);

alter table pgworker.intents enable row level security;

create unique index intents_by_name
on pgworker.intents (provider, name);

-- Every effect outside, recorded before it is sent and after its answer has come.
-- intended: sent, or about to be; nobody has told how it ended. done: it happened. refused: it
-- did not happen, for certain. unknown: its answer got lost. repeated: a look found nothing of
-- it, so that it may be begun again. An outcome that is intended or unknown is looked up before the
-- same step is begun again.
create table pgworker.steps (
    id bigint generated always as identity primary key,
    client_id uuid not null references public.clients (id) on delete restrict,
    -- Null where a person did it, who holds no job.
    job_id bigint,
    claim_token bigint,
    step text not null,
    target text not null,
    state text not null default 'intended' check (
        state in ('intended', 'done', 'refused', 'unknown', 'repeated')
    ),
    intended_at timestamptz not null default now(),
    ended_at timestamptz
);

alter table pgworker.steps enable row level security;

create index steps_of_client
on pgworker.steps (client_id, step, id);

-- AES-256-GCM by the worker, with client and field as associated data: a row copied to
-- another client or field does not decrypt.
create table pgworker.tenant_secrets (
    client_id uuid not null references public.clients (id) on delete restrict,
    field text not null,
    key_id text not null,
    nonce bytea not null,
    ciphertext bytea not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (client_id, field)
);

alter table pgworker.tenant_secrets enable row level security;

-- Credentials that the provider refuses. No row: all is well.
create table pgworker.breakers (
    credential text primary key,
    reason text not null,
    opened_at timestamptz not null default now(),
    probe_at timestamptz not null,
    probes integer not null default 0
);

alter table pgworker.breakers enable row level security;
