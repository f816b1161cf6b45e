-- name: defer_function_checks
set local check_function_bodies = off;

-- name: create_history_table
-- version is the number of a migration; null for an object that is applied again when its text
-- changes.
create table if not exists pgworker.schema_history (
    name text primary key,
    version integer unique,
    checksum text not null,
    applied_at timestamptz not null default now()
);

-- name: protect_history
alter table pgworker.schema_history enable row level security;

-- name: history_exists
select to_regclass('pgworker.schema_history') is not null;

-- name: history
select
    name,
    version,
    checksum,
    applied_at
from pgworker.schema_history;

-- name: record
insert into pgworker.schema_history (name, version, checksum)
values ($1, $2, $3)
on conflict (name) do update
    set
        checksum = excluded.checksum,
        applied_at = now();
