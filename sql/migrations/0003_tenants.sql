-- What pgworker knows about the outside: what it meant to make, what it made, the secrets of
-- tenants (encrypted before they come here), which credentials the provider refuses, and how
-- many requests it still accepts.

-- One row per client and thing to make, committed before the first request leaves: its name,
-- what was asked for, and its ref once that is known.
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

-- Every effect outside, recorded before it is sent and again after its answer has come.
-- intended: sent, or about to be; the outcome isn't known yet. done: it happened. refused: it
-- certainly did not happen. unknown: the answer was lost. repeated: a look-up found nothing, so
-- the step may be begun again. A step that is intended or unknown must be looked up before the
-- same step is begun again.
create table pgworker.steps (
    id bigint generated always as identity primary key,
    client_id uuid not null references public.clients (id) on delete restrict,
    -- Null for a step that a person took, who holds no job.
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

-- The worker encrypts with AES-256-GCM, with client and field as associated data: a row that is
-- copied to another client or field does not decrypt.
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

-- Credentials that the provider refuses. A credential without a row is accepted.
create table pgworker.breakers (
    credential text primary key,
    reason text not null,
    opened_at timestamptz not null default now(),
    probe_at timestamptz not null,
    probes integer not null default 0,
    -- The job that probes the credential, and the claim under which it does.
    probe_job_id bigint,
    probe_claim_token bigint
);

alter table pgworker.breakers enable row level security;

-- The buckets of the provider's rate limit, shared by all workers. One row per bucket: requests
-- of one credential to one endpoint of one project or organisation, counted in the windows of
-- the server (sql/README.md). Rows are made when they are first needed and removed a day after
-- their last window.
-- Logged, though a crash may lose its last changes (reserve_requests commits without waiting for
-- the disk): a standby can read the table and keeps it when it is promoted.
create table pgworker.rate_limits (
    credential text not null,
    scope text not null,
    endpoint text not null,
    -- Requests of a window, and how long one lasts, as responses reported; null until then.
    ceiling integer,
    span interval,
    -- The present window: its end is a guess until a response has reported it.
    opened_at timestamptz not null,
    resets_at timestamptz not null,
    end_is_known boolean not null default false,
    used integer not null default 0,
    refused integer not null default 0,
    primary key (credential, scope, endpoint)
)
-- Few rows, often updated, never in an indexed column: each page keeps room for the next
-- version of its rows, and most updates are heap-only.
with (fillfactor = 50);

alter table pgworker.rate_limits enable row level security;
