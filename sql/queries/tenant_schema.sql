-- name: reset_session
-- Ends whatever a file did to its session, in a call of its own between two files: settings, which
-- decide how the next script is read (standard_conforming_strings), temporary tables, which hide
-- others of their name, cursors, prepared statements, locks, sequences' last values. It is what
-- `discard all` does (PostgreSQL's manual) but for the role, which the code that opened the
-- connection may have chosen.
close all; -- noqa: PRS

reset all;

deallocate all;

unlisten *;

select pg_catalog.pg_advisory_unlock_all();

discard plans;

discard temp;

discard sequences;

-- name: open_transaction
-- The head of each script. One sync of a tenant at a time; the number is "pgworker" in ASCII, and
-- advisory locks belong to a database, so that tenants on one server don't wait for each other.
-- The role isn't part of `reset all`. It is put back at the end instead of reset: the code that
-- opened the connection may have chosen it, above a login with more rights. The characteristics
-- are what the file sets for its transaction: the server takes them before the first query only.
begin;

{characteristics} -- noqa: PRS

reset all;

select
    set_config('pgworker.session_authorization', current_setting('session_authorization'), true),
    set_config('pgworker.role', current_setting('role'), true);

select pg_advisory_xact_lock(8099573775393842546);

-- name: create_history
-- The rest of a script that makes the history table of Supabase's CLI as the CLI makes it, also
-- out of an older one. The lock time-out is the CLI's too. It isn't set before our own lock is
-- held: another sync may be in the middle of a long file.
set local lock_timeout = '4s';

create schema if not exists supabase_migrations;

create table if not exists supabase_migrations.schema_migrations (
    version text not null primary key
);

alter table supabase_migrations.schema_migrations add column if not exists statements text[];

alter table supabase_migrations.schema_migrations add column if not exists name text;

commit;

-- name: read_history
-- The tenant's migrations, oldest first. Through jsonb, since the table of an old CLI may lack
-- the columns name and statements.
select
    history.version,
    to_jsonb(history) ->> 'name' as name,
    to_jsonb(history) -> 'statements' as statements
from supabase_migrations.schema_migrations as history
order by history.version;

-- name: record
-- A migration's row; a second one fails on the key, as it should.
insert into supabase_migrations.schema_migrations (version, name, statements)
values ({version}, {name}, array[{statements}]::text[]); -- noqa: PRS

-- name: run_marked
-- Runs a statement and adds its number to the message of an error. `others` leaves out the first
-- two.
do language plpgsql $body$
begin
    execute {statement};
exception
    when query_canceled or assert_failure or others then
        raise exception 'pgworker statement {number}: %', sqlerrm using errcode = sqlstate;
end
$body$;

-- name: close_transaction
-- The end of a script that keeps its changes. The role is put back whatever the file did to it,
-- to search_path, or by a `reset all` of its own. PostgREST caches the schema that it serves: the
-- notification is sent with the commit and never without it, and PostgREST merges many into one
-- reload. A file that must run alone changes no schema and needs none.
select pg_catalog.set_config(
    'session_authorization',
    coalesce(
        nullif(pg_catalog.current_setting('pgworker.session_authorization', true), ''),
        pg_catalog.current_setting('session_authorization')
    ),
    false
);

select pg_catalog.set_config(
    'role',
    coalesce(
        nullif(pg_catalog.current_setting('pgworker.role', true), ''),
        pg_catalog.current_setting('role')
    ),
    false
);

notify pgrst, 'reload schema';

commit;

-- name: find_invalid_indexes
-- The indexes of a table that a `create index concurrently` left when it failed, or is still
-- building.
select
    class.relname as index_name,
    format('%I.%I', namespace.nspname, class.relname) as qualified_name,
    array(
        select attribute.attname::text
        from pg_catalog.pg_attribute as attribute
        where attribute.attrelid = index.indexrelid
        order by attribute.attnum
    ) as columns,
    exists(
        select 1
        from pg_catalog.pg_stat_progress_create_index as progress
        where progress.index_relid = index.indexrelid
    ) as is_being_built
from pg_catalog.pg_index as index
inner join pg_catalog.pg_class as class on index.indexrelid = class.oid
inner join pg_catalog.pg_namespace as namespace on class.relnamespace = namespace.oid
where
    not index.indisvalid
    and index.indrelid = to_regclass({table}); -- noqa: PRS
