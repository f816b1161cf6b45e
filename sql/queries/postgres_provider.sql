-- name: admin_rights
-- Whether our role has the rights that creating tenants needs.
select
    rolname as role,
    rolsuper or rolcreatedb as may_create_databases,
    rolsuper or rolcreaterole as may_create_roles
from pg_catalog.pg_roles
where rolname = current_user;

-- name: list_tenants
-- The databases and roles whose names match. A row without an owner is a role without a database.
-- is_closed: no other role may connect. is_reassigned: nothing in it belongs to its template's role
-- any more; a tenant is complete when both are true. is_invalid: its drop was interrupted, which
-- PostgreSQL marks with a connection limit of -2.
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
        ) as is_reassigned
    from pg_catalog.pg_database as database
    where database.datname {matches} -- noqa: PRS
),

named_role as (
    select role.rolname as name
    from pg_catalog.pg_roles as role
    where role.rolname {matches} -- noqa: PRS
)

select
    named_database.owner,
    named_database.is_invalid,
    named_database.is_closed,
    named_database.is_reassigned,
    coalesce(named_database.name, named_role.name) as name
from named_database
full join named_role on named_database.name = named_role.name
order by name;

-- name: create_roles
-- The owner, which can't log in yet, and the roles that canonical migrations grant to, as in a
-- Supabase project. Roles belong to the whole server: another worker may be creating them at the
-- same time. This doesn't wait for the disk, because CREATE DATABASE comes next and does.
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

    -- Without nosuperuser and the like: they are the default, and naming them needs a superuser.
    if not exists (select 1 from pg_catalog.pg_roles where rolname = {name}) then
        execute pg_catalog.format('create role %I', {name});
    end if;

    -- To give a database to a role, and to close it for others, we must be able to become the role
    -- and have its rights. Superusers can; since PostgreSQL 16 the creator of a role gets neither,
    -- only the right to grant itself both.
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
-- template0: no session is ever connected to it, so it can always be copied.
create database {database} with owner {database} template template0 encoding 'UTF8'; -- noqa: PRS

-- name: close_database
-- Tenants can't connect to each other's databases. This is the last step of a create.
revoke all on database {database} from public;

-- name: set_password
alter role {database} with login password {verifier}; -- noqa: PRS

-- name: drop_database
drop database if exists {database} with (force);

-- name: drop_role
drop role if exists {database};
