-- What the HTTP API keeps in the database: requests that may come twice, and its watchers.

-- A client that was requested with an Idempotency-Key: the same key of the same bearer stands
-- for the same client, for a week. The fingerprint is that of the request's body.
create table pgworker.idempotency_keys (
    bearer text not null,
    key text not null,
    fingerprint bytea not null,
    client_id uuid references public.clients (id) on delete cascade,
    created_at timestamptz not null default now(),
    primary key (bearer, key)
);

alter table pgworker.idempotency_keys enable row level security;

create index idempotency_keys_by_age
on pgworker.idempotency_keys (created_at);

create index idempotency_keys_of_client
on pgworker.idempotency_keys (client_id);

-- Processes that want to hear of transitions, on the channel pgworker_events: no notification
-- is sent while there is none. Unlogged: a watcher that a crash forgets registers again within
-- seconds.
create unlogged table pgworker.watchers (
    id text primary key,
    expires_at timestamptz not null
);

alter table pgworker.watchers enable row level security;
