-- What the HTTP API keeps in the database: the orders that may come twice, and who watches.

-- A client that was ordered with an Idempotency-Key: the same key of the same bearer stands for
-- the same client, for a week. The fingerprint is of the order's body.
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

-- Processes that want to hear of transitions, on the channel pgworker_events: nobody is
-- notified while nobody watches. Unlogged: a watcher that a crash forgets comes back by itself
-- within seconds.
create unlogged table pgworker.watchers (
    id text primary key,
    expires_at timestamptz not null
);

alter table pgworker.watchers enable row level security;

-- Lists of all clients, newest first, page after page; an adopted table may lack a time.
create index if not exists clients_by_age
on public.clients (coalesce(created_at, '-infinity') desc, id desc);
