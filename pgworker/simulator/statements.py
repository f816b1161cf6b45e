"""The SQL that makes a database look like a new Supabase project's. `{}` are quoted names."""

CREATE_API_ROLES = """
do $$
declare
    v_name text;
begin
    foreach v_name in array array['anon', 'authenticated', 'service_role'] loop
        if not exists (select from pg_roles where rolname = v_name) then
            execute format('create role %I nologin noinherit', v_name);
        end if;
    end loop;
    begin
        alter role service_role bypassrls;
    exception
        -- An admin role that may not give bypassrls away still makes a usable stand-in.
        when insufficient_privilege then null;
    end;
end
$$
"""

# Roles belong to the whole server: two simulators on one must not both create them.
LOCK_API_ROLES = "select pg_advisory_xact_lock(hashtext('pgworker.simulator.roles'))"

# Every call opens a connection of its own: with the usual 4096 rounds the passwords of a stand-in
# would be most of its work. Servers before 16 have no such setting.
HASH_PASSWORDS_QUICKLY = """
select set_config(name, '1', false)
from pg_catalog.pg_settings
where name = 'scram_iterations'
"""

QUOTED = """
select
    format('create role %1$I login nosuperuser password %2$L', $1::text, $2::text) as create_role,
    format('alter role %1$I password %2$L', $1::text, $2::text) as alter_role,
    format('grant anon, authenticated, service_role to %1$I', $1::text) as grant_roles,
    format('grant %1$I to current_user', $1::text) as grant_owner,
    format('create database %1$I owner %2$I template template0', $3::text, $1::text)
        as create_database,
    format('revoke all on database %1$I from public', $3::text) as revoke_database,
    format('drop database if exists %1$I with (force)', $3::text) as drop_database,
    format('drop role if exists %1$I', $1::text) as drop_role
"""

# Supabase's own schemas as far as migrations lean on them: auth.uid() in policies, auth.users in
# references. The API roles may use the schemas and hold no grant on any table.
CREATE_PLATFORM_SCHEMAS = """
create schema extensions;
create schema auth;
create table auth.users (
    id uuid primary key,
    email text unique,
    raw_user_meta_data jsonb,
    created_at timestamptz default now()
);
create function auth.jwt() returns jsonb language sql stable
as 'select nullif(current_setting(''request.jwt.claims'', true), '''')::jsonb';
create function auth.uid() returns uuid language sql stable
as 'select (auth.jwt() ->> ''sub'')::uuid';
create function auth.role() returns text language sql stable
as 'select auth.jwt() ->> ''role''';
grant usage on schema public, auth, extensions to anon, authenticated, service_role;
"""

OWN_PLATFORM_SCHEMAS = """
select format(
    'grant usage, create on schema extensions to %1$I; grant usage on schema auth to %1$I;'
    'grant select, insert, update, delete, references on auth.users to %1$I;'
    'grant create on schema public to %1$I',
    $1::text
)
"""

FIND_EXPOSED_RELATION = """
select 1
from pg_catalog.pg_class
where
    relnamespace = 'public'::regnamespace
    and relname = $1
    and relkind in ('r', 'v', 'm', 'f', 'p')
"""

EXPOSED_RELATIONS = """
select relname
from pg_catalog.pg_class
where
    relnamespace = 'public'::regnamespace
    and relkind in ('r', 'v', 'm', 'f', 'p')
order by relname
"""
