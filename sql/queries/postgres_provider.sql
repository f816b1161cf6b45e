-- name: admin_rights
-- Whether our role has the rights that creating tenants needs.
select
    rolname as role,
    rolsuper or rolcreatedb as may_create_databases,
    rolsuper or rolcreaterole as may_create_roles
from pg_catalog.pg_roles
where rolname = current_user;

-- name: find_database
-- A database of that name: whose it is, whether it is closed to everybody else, and whether all
-- that it has from a template has become its owner's. It is whole when both are true.
select
    pg_catalog.pg_get_userbyid(database.datdba) as owner,
    not exists (
        select 1
        from
            pg_catalog.aclexplode(
                coalesce(database.datacl, pg_catalog.acldefault('d', database.datdba))
            ) as granted
        where granted.grantee = 0
    ) as is_closed,
    not exists (
        select 1
        from pg_catalog.pg_shdepend as dependency
        where
            dependency.dbid = database.oid
            and dependency.refclassid = 'pg_catalog.pg_authid'::regclass
            and starts_with(pg_catalog.pg_get_userbyid(dependency.refobjid), 'template_pgw_')
    ) as is_taken_over
from pg_catalog.pg_database as database
where database.datname = {name}; -- noqa: PRS

-- name: list_tenants
-- The databases and roles that bear names of ours. No owner: there is a role only.
-- A connection limit of -2 marks a database whose drop was interrupted.
with named_database as (
    select
        database.datname as name,
        pg_catalog.pg_get_userbyid(database.datdba) as owner,
        database.datconnlimit = -2 as is_invalid,
        not exists (
            select 1
            from
                pg_catalog.aclexplode(
                    coalesce(database.datacl, pg_catalog.acldefault('d', database.datdba))
                ) as granted
            where granted.grantee = 0
        ) as is_closed,
        not exists (
            select 1
            from pg_catalog.pg_shdepend as dependency
            where
                dependency.dbid = database.oid
                and dependency.refclassid = 'pg_catalog.pg_authid'::regclass
                and starts_with(pg_catalog.pg_get_userbyid(dependency.refobjid), 'template_pgw_')
        ) as is_taken_over
    from pg_catalog.pg_database as database
    where database.datname ~ '^pgw_[0-9a-f]{32}$'
),

named_role as (
    select role.rolname as name
    from pg_catalog.pg_roles as role
    where role.rolname ~ '^pgw_[0-9a-f]{32}$'
)

select
    named_database.owner,
    named_database.is_invalid,
    named_database.is_closed,
    named_database.is_taken_over,
    coalesce(named_database.name, named_role.name) as name
from named_database
full join named_role on named_database.name = named_role.name
order by name;

-- name: create_roles
-- The owner, who can't log in yet, and the roles that canonical migrations grant to
-- (as a Supabase project has them). Roles belong to the whole server, and another worker
-- may be making them at this moment. Waits for no disk: CREATE DATABASE does, which comes next.
do $create_roles$
declare
    v_role text;
begin
    perform pg_catalog.set_config('synchronous_commit', 'off', true);

    foreach v_role in array array['anon', 'authenticated', 'service_role'] loop
        if not exists (select 1 from pg_catalog.pg_roles where rolname = v_role) then
            begin
                execute pg_catalog.format('create role %I nologin', v_role);
            exception
                when duplicate_object or unique_violation then null;
            end;
        end if;
    end loop;

    -- nosuperuser and the like are what a new role is; to name them needs a superuser.
    if not exists (select 1 from pg_catalog.pg_roles where rolname = {name}) then
        execute pg_catalog.format('create role %I', {name});
    end if;

    -- To give a database to a role, and to close it for others, one must be able to become the
    -- role and have its rights. Superusers do; since PostgreSQL 16 creating a role gives neither,
    -- only the right to grant both to oneself.
    if not (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
        execute pg_catalog.format('grant %I to %I', {name}, current_user)
            || case
                when current_setting('server_version_num')::integer >= 160000
                    then ' with inherit true, set true'
                else ''
            end;
    end if;
end
$create_roles$;

-- name: create_database
-- template0: nobody is ever connected to it, so it can always be copied.
create database {database} with owner {database} template template0 encoding 'UTF8'; -- noqa: PRS

-- name: close_database
-- Tenants don't see into each other's databases. Closed is the last thing that it becomes.
revoke all on database {database} from public;

-- name: set_password
alter role {database} with login password {verifier}; -- noqa: PRS

-- name: drop_database
drop database if exists {database} with (force);

-- name: drop_role
drop role if exists {database};
