-- What pgworker knows of the outside: what it meant to make, what it made, the secrets
-- of tenants (encrypted before they come here), and which credentials are refused.

-- One row per client and thing to make, committed before the first request leaves.
-- state: intent (nothing sent), creating (a create was sent or is about to be),
-- created (ref known), refused (the provider said a definite no).
create table pgworker.intents (
    client_id uuid not null references public.clients (id) on delete restrict,
    kind text not null default 'tenant',
    provider text not null,
    name text not null,
    state text not null default 'intent' check (
        state in ('intent', 'creating', 'created', 'refused')
    ),
    request jsonb not null default '{}',
    creates integer not null default 0,
    create_sent_at timestamptz,
    ref text,
    job_id bigint not null,
    claim_token bigint not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (client_id, kind)
);

alter table pgworker.intents enable row level security;

create unique index intents_by_name
on pgworker.intents (provider, name);

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
