-- What the provider's patience allows, shared by all workers: the buckets of its rate
-- limit, and whose turn it is to try a credential that it refused.

-- One row per bucket: requests of one credential to one endpoint of one project or
-- organisation, counted in the windows of the server (sql/README.md). Rows are made when
-- they are first needed and swept away a day after their last window.
-- Logged, though a crash may lose its last changes (take_requests commits without waiting
-- for the disk): a standby can be asked for them and keeps them when it is promoted.
create table pgworker.rate_limits (
    credential text not null,
    scope text not null,
    endpoint text not null,
    -- Requests of a window, and how long one lasts, as answers told; null until then.
    ceiling integer,
    span interval,
    -- The present window: its end is a guess until an answer has told it.
    opened_at timestamptz not null,
    resets_at timestamptz not null,
    is_told boolean not null default false,
    used integer not null default 0,
    refused integer not null default 0,
    primary key (credential, scope, endpoint)
)
-- Few rows, often updated, never in an indexed column: each page keeps room for the next
-- version of its rows, and most updates are heap-only.
with (fillfactor = 50);

alter table pgworker.rate_limits enable row level security;

-- The job that tries a refused credential, under the claim that it tries it with.
alter table pgworker.breakers
add column probe_job_id bigint,
add column probe_claim_token bigint;

-- Their arguments change.
drop function if exists pgworker.admit(text, interval);

drop function if exists pgworker.snooze(
    bigint[], bigint[], interval[], text[], jsonb[], text[], text[]
);
