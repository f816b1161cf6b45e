-- name: find_template
-- The name of a set's template on this server, and whether it may be copied. The name is also
-- derived from what the files don't contain: our role, the server's version, and the versions of
-- the extensions that the set creates. was_used_today: see `mark_used`.
with given as (
    select {fingerprint}::text as fingerprint, {extensions}::text[] as extensions -- noqa: PRS, LT09
),

traits as (
    select
        concat_ws(
            '/',
            given.fingerprint,
            current_user,
            current_setting('server_version_num'),
            (
                select
                    string_agg(
                        available.name || ' ' || available.default_version,
                        ',' order by available.name
                    )
                from pg_catalog.pg_available_extensions() as available
                -- The first condition avoids a read of the disk for a set without extensions.
                where cardinality(given.extensions) > 0 and available.name = any(given.extensions)
            )
        ) as text
    from given
),

named as (
    select 'template_pgw_' || left(encode(sha256(convert_to(text, 'UTF8')), 'hex'), 32) as name
    from traits
)

select
    named.name,
    to_hex(extract(epoch from now())::bigint) as attempt,
    coalesce(
        database.datistemplate
        and not database.datallowconn
        and pg_catalog.pg_get_userbyid(database.datdba) = current_user,
        false
    ) as is_ready,
    coalesce(
        right(pg_catalog.shobj_description(database.oid, 'pg_database'), 10)
        = to_char(now() at time zone 'UTC', 'YYYY-MM-DD'),
        false
    ) as was_used_today
from named
left join pg_catalog.pg_database as database on named.name = database.datname;

-- name: copy_template
-- Without a strategy: the default of 15 and later, wal_log, is several times faster than a copy of
-- the files, which waits for two checkpoints of the whole server.
create database {database} with owner {database} template {template}; -- noqa: PRS

-- name: mark_used
-- The comment of a template has the day of its last use; workers update it once a day.
do $mark_used$
begin
    execute pg_catalog.format(
        'comment on database %I is %L',
        {name},
        'pgworker template, last used on '
        || to_char(now() at time zone 'UTC', 'YYYY-MM-DD')
    );
end
$mark_used$;

-- name: reassign_ownership
-- Runs in a copy: give everything that the copy has from its template to the tenant, also in ACLs,
-- and close it to other roles. All of it, or nothing if anything would remain the template's.
-- Repeatable. The search path has no schema of the tenant's: we may be a superuser here.
set search_path to pg_catalog, pg_temp;

do $reassign_ownership$
declare
    v_database oid := (
        select oid from pg_catalog.pg_database where datname = current_database()
    );
    v_role regrole;
    v_schema text;
begin
    for v_role in
        select distinct dependency.refobjid
        from pg_catalog.pg_shdepend as dependency
        where
            dependency.dbid = v_database
            and dependency.refclassid = 'pg_catalog.pg_authid'::regclass
            and starts_with(pg_catalog.pg_get_userbyid(dependency.refobjid), 'template_pgw_')
    loop
        -- Schemas first: without a superuser, the new owner of an object needs the right to create
        -- in its schema.
        for v_schema in
            select namespace.nspname
            from pg_catalog.pg_namespace as namespace
            where namespace.nspowner = v_role
        loop
            execute pg_catalog.format('alter schema %I owner to %I', v_schema, {name});
        end loop;

        execute pg_catalog.format('reassign owned by %s to %I', v_role, {name});

        if exists (
            select 1
            from pg_catalog.pg_shdepend as dependency
            where
                dependency.dbid = v_database
                and dependency.refclassid = 'pg_catalog.pg_authid'::regclass
                and dependency.refobjid = v_role
        ) then
            raise exception 'the copy can not be reassigned: more than ownership refers to role %',
                v_role;
        end if;
    end loop;

    execute pg_catalog.format('revoke all on database %I from public', current_database());
end
$reassign_ownership$;

-- name: lock
-- One builder of templates at a time, among the workers that log in to this database; the lock
-- ends with the session. The number is "pgwtempl" in ASCII.
select pg_catalog.pg_try_advisory_lock(8099573796650709100) as is_ours;

-- name: unlock
select pg_catalog.pg_advisory_unlock(8099573796650709100) as was_ours;

-- name: list_leftovers
-- Databases and roles of ours that no worker needs: drafts of a build that was interrupted an hour
-- ago (their names end in the second of its start and four random digits, in hexadecimal),
-- templates that no worker has used for two days, and the roles of dropped templates, unless a role
-- still owns something.
select database.datname as name
from pg_catalog.pg_database as database
where
    pg_catalog.pg_has_role(database.datdba, 'member')
    and (
        (
            database.datname ~ '^template_pgw_[0-9a-f]{32}$'
            and right(pg_catalog.shobj_description(database.oid, 'pg_database'), 10)
            < to_char(now() at time zone 'UTC' - interval '2 days', 'YYYY-MM-DD')
        )
        or (
            database.datname ~ '^(template|trial)_pgw_[0-9a-f]{32}_[0-9a-f]{12}$'
            and left(right(database.datname, 12), 8)
            < to_hex(extract(epoch from now())::bigint - 3600)
        )
    )

union

select role.rolname as name
from pg_catalog.pg_roles as role
where
    role.rolname ~ '^(template|trial)_pgw_[0-9a-f]{32}_[0-9a-f]{12}$'
    and left(right(role.rolname, 12), 8)
    < to_hex(extract(epoch from now())::bigint - 3600)
    and pg_catalog.pg_has_role(role.oid, 'member')
    and not exists (
        select 1
        from pg_catalog.pg_shdepend as dependency
        where
            dependency.refclassid = 'pg_catalog.pg_authid'::regclass
            and dependency.refobjid = role.oid
            and dependency.deptype = 'o'
    );

-- name: find_blockers
-- Reasons not to copy this database, in words; no row when there is none. A copy can reassign plain
-- ownership only, and data would be the same in all tenants.
with here as (
    select oid from pg_catalog.pg_database where datname = current_database()
),

builder as (
    select oid from pg_catalog.pg_roles where rolname = {name}
)

select
    'more than ownership connects its role with '
    || pg_catalog.pg_describe_object(
        dependency.classid, dependency.objid, dependency.objsubid
    ) as reason
from pg_catalog.pg_shdepend as dependency
where
    dependency.dbid = (select oid from here)
    and dependency.refclassid = 'pg_catalog.pg_authid'::regclass
    and dependency.refobjid = (select oid from builder)
    and (
        dependency.deptype <> 'o'
        or dependency.classid in (
            'pg_catalog.pg_default_acl'::regclass, 'pg_catalog.pg_user_mapping'::regclass
        )
    )

union all

select 'there are rows in ' || class.oid::regclass as reason
from pg_catalog.pg_class as class
where
    class.relkind in ('r', 'm')
    and class.relnamespace::regnamespace::text
    not in ('pg_catalog', 'information_schema', 'supabase_migrations')
    and pg_catalog.pg_relation_size(class.oid) > 0
    and not exists (
        select 1
        from pg_catalog.pg_depend as dependency
        where
            dependency.classid = 'pg_catalog.pg_class'::regclass
            and dependency.objid = class.oid
            and dependency.deptype = 'e'
    )

union all

select 'it has large objects' as reason
where exists (select 1 from pg_catalog.pg_largeobject_metadata)

union all

select 'database or role have settings of their own' as reason
from pg_catalog.pg_db_role_setting as setting
where setting.setdatabase = (select oid from here) or setting.setrole = (select oid from builder);

-- name: disable_builder
-- The role can't log in any more, and owns nothing outside of its database.
alter role {database} with nologin password null;
alter database {database} owner to current_user; -- noqa: PRS

-- name: close_template
-- No session can connect, so that it can always be copied.
alter database {database} with allow_connections false is_template true; -- noqa: PRS

-- name: publish
-- The last step: workers look for this name.
alter database {database} rename to {template}; -- noqa: PRS

-- name: unprotect
-- PostgreSQL doesn't drop templates.
alter database {database} with is_template false; -- noqa: PRS

-- name: drop_unused
-- Without force: a database with a session in it stays.
drop database if exists {database}; -- noqa: PRS
