-- name: lock_api_roles
-- Roles belong to the whole server: two simulators must not create them at the same time.
select pg_advisory_xact_lock(hashtext('pgworker.simulator.roles'));

-- name: create_api_roles
-- The roles that the Data API of a Supabase project takes.
do $create_api_roles$
declare
    v_name text;
begin
    foreach v_name in array array['anon', 'authenticated', 'service_role'] loop
        if not exists (select 1 from pg_catalog.pg_roles where rolname = v_name) then
            execute format('create role %I nologin noinherit', v_name);
        end if;
    end loop;

    begin
        alter role service_role bypassrls;
    exception
        -- Without bypassrls, if the admin role may not grant it, the simulator is still usable.
        when insufficient_privilege then null;
    end;
end
$create_api_roles$;

-- name: hash_passwords_quickly
-- Each call opens a connection of its own: with the usual 4096 rounds, checking passwords would
-- be most of the simulator's work. Servers before 16 have no such setting.
select set_config(name, '1', false)
from pg_catalog.pg_settings
where name = 'scram_iterations';

-- name: is_superuser
select rolsuper
from pg_catalog.pg_roles
where rolname = current_user;

-- name: quote_statements
-- The statements that create and drop a project's role and database, with their names and the
-- password quoted: $1 is the role, $2 its password, $3 the database.
select
    format('create role %1$I login nosuperuser password %2$L', $1::text, $2::text) as create_role,
    format('alter role %1$I password %2$L', $1::text, $2::text) as alter_role,
    format('grant anon, authenticated, service_role to %1$I', $1::text) as grant_roles,
    format('grant %1$I to current_user', $1::text) as grant_owner,
    format('create database %1$I owner %2$I template template0', $3::text, $1::text)
        as create_database,
    format('revoke all on database %1$I from public', $3::text) as revoke_database,
    format('drop database if exists %1$I with (force)', $3::text) as drop_database,
    format('drop role if exists %1$I', $1::text) as drop_role;

-- name: create_platform_schemas
-- Supabase's own schemas, as far as migrations use them: auth.uid() in policies, auth.users in
-- references. The API roles may use the schemas and have no grant on any table.
create schema extensions;

create schema auth;

create table auth.users (
    id uuid primary key,
    email text unique,
    raw_user_meta_data jsonb,
    created_at timestamptz default now()
);

create function auth.jwt()
returns jsonb
language sql
stable
as $$
    select nullif(current_setting('request.jwt.claims', true), '')::jsonb
$$;

create function auth.uid()
returns uuid
language sql
stable
as $$
    select (auth.jwt() ->> 'sub')::uuid
$$;

create function auth.role()
returns text
language sql
stable
as $$
    select auth.jwt() ->> 'role'
$$;

grant usage on schema public, auth, extensions to anon, authenticated, service_role;

-- name: own_platform_schemas
-- The grants that give a project's role its rights on them.
select
    format(
        'grant usage, create on schema extensions to %1$I; grant usage on schema auth to %1$I;'
        'grant select, insert, update, delete, references on auth.users to %1$I;'
        'grant create on schema public to %1$I',
        $1::text
    );

-- name: literals
-- These texts as the arguments of an `execute`.
select string_agg(format('%L', given.item), ', ' order by given.place)
from unnest($1::text[]) with ordinality as given (item, place);

-- name: find_exposed_relation
select 1
from pg_catalog.pg_class
where
    relnamespace = 'public'::regnamespace
    and relname = $1
    and relkind in ('r', 'v', 'm', 'f', 'p');

-- name: exposed_relations
select relname
from pg_catalog.pg_class
where
    relnamespace = 'public'::regnamespace
    and relkind in ('r', 'v', 'm', 'f', 'p')
order by relname;
