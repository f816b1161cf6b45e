-- name: state
-- The index for lists of all clients, if there is a relation of that name that is an index.
select
    index.indisvalid as is_valid,
    index.indrelid = to_regclass('public.clients') as is_of_clients
from pg_catalog.pg_index as index
where index.indexrelid = to_regclass('public.clients_by_age');

-- name: builder
-- The session that builds an index of clients concurrently.
select min(progress.pid)
from pg_catalog.pg_stat_progress_create_index as progress
where
    progress.relid = to_regclass('public.clients')
    and progress.datname = current_database();

-- name: create
-- Newest first, page by page; an adopted table may lack a time. No index has provisioning_status
-- in it: each change of a status would then write into every index of the table. Clients of a
-- status that isn't final are found by their jobs.
create index if not exists clients_by_age
on public.clients (coalesce(created_at, '-infinity') desc, id desc);

-- name: create_concurrently
create index concurrently if not exists clients_by_age
on public.clients (coalesce(created_at, '-infinity') desc, id desc);

-- name: drop_concurrently
drop index concurrently if exists public.clients_by_age;
