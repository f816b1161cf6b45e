-- name: create_history
-- The table of Supabase's CLI, made as the CLI makes it (also out of an older one).
create schema if not exists supabase_migrations;

create table if not exists supabase_migrations.schema_migrations (
    version text not null primary key
);

alter table supabase_migrations.schema_migrations add column if not exists statements text[];

alter table supabase_migrations.schema_migrations add column if not exists name text;

-- name: read_history
-- What the tenant has, oldest first. Through jsonb, since a table of an old CLI may lack
-- the columns name and statements.
select
    history.version,
    to_jsonb(history) ->> 'name' as name,
    to_jsonb(history) -> 'statements' as statements
from supabase_migrations.schema_migrations as history
order by history.version;

-- name: keep_role
-- A role isn't part of `reset all`. We put back the one we found instead of resetting it:
-- whoever opened the connection may have chosen it, above a login that may do more.
select set_config('pgworker.role', current_setting('role'), true);

-- name: restore_role
-- Whatever the file did to the role, to search_path, or by a `reset all` of its own.
select pg_catalog.set_config(
    'role',
    coalesce(
        nullif(pg_catalog.current_setting('pgworker.role', true), ''),
        pg_catalog.current_setting('role')
    ),
    false
);

-- name: reload_api_schema
-- PostgREST caches the schema that it serves. In the file's transaction: sent with the commit,
-- never without; PostgREST makes one reload of many. What must run alone changes no schema.
notify pgrst, 'reload schema';

-- name: find_invalid_index
-- The remains of a `create index concurrently` that didn't end well; or one that is under way.
with given as (
    select {index}::text as index_name, {table}::text as table_name -- noqa: PRS, LT09
)

select
    format('%I.%I', namespace.nspname, class.relname) as name,
    exists(
        select 1
        from pg_catalog.pg_stat_progress_create_index as progress
        where progress.index_relid = index.indexrelid
    ) as is_being_built
from given
inner join pg_catalog.pg_class as class on given.index_name = class.relname
inner join pg_catalog.pg_index as index on class.oid = index.indexrelid
inner join pg_catalog.pg_namespace as namespace on class.relnamespace = namespace.oid
where
    not index.indisvalid
    and index.indrelid = to_regclass(given.table_name);
