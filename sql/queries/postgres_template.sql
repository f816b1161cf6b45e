-- name: find_template
-- What the template of a set is called on this server, for our login, and whether it may be
-- copied. The name holds whatever the set's files can't tell: who makes tenants, the server's
-- version, and the versions of the extensions that the set creates. was_used_today: see `use`.
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
                -- The first condition spares a set that has none the reading of the disk.
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

-- name: copy
-- No strategy is named: where there is a choice (15 and later) the default, by the log, is several
-- times faster than a copy of files, which waits for two checkpoints of the whole server.
create database {database} with owner {database} template {template}; -- noqa: PRS

-- name: use
-- A template's comment tells the day on which it was last used, as far as somebody noted it.
do $use$
begin
    execute pg_catalog.format(
        'comment on database %I is %L',
        {name},
        'pgworker template, last used on '
        || to_char(now() at time zone 'UTC', 'YYYY-MM-DD')
    );
end
$use$;

-- name: take_over
-- What a copy brought along becomes the tenant's, also in ACLs, and the copy is closed to everybody
-- else: all of it, or nothing when anything would remain the template's. For the copy itself.
-- Repeatable. Names are looked up in no schema of the tenant's: we may be a superuser here.
set search_path to pg_catalog, pg_temp;

do $take_over$
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
        -- Schemas first: unless a superuser says so, an owner must have the right to create where
        -- its objects are.
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
            raise exception 'a copy does not change hands as a whole: more than ownership ties it to %',
                v_role;
        end if;
    end loop;

    execute pg_catalog.format('revoke all on database %I from public', current_database());
end
$take_over$;

-- name: lock
-- One maker of templates at a time, of those who log in to this database; one that dies lets go.
-- The number is "pgwtempl" in ASCII.
select pg_catalog.pg_try_advisory_lock(8099573796650709100) as is_ours;

-- name: unlock
select pg_catalog.pg_advisory_unlock(8099573796650709100) as was_ours;

-- name: list_leftovers
-- Names of ours that nobody needs, of databases, roles or both: what an interrupted maker left an
-- hour ago (its names end in the second of its start and four random digits, in hexadecimal),
-- templates that nobody has used for two days, and the roles of templates that are gone; not a
-- role that still owns something.
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

-- name: objections
-- Reasons not to copy this database, in words; no row when there is none. What isn't plainly owned
-- wouldn't change hands; what holds data would give the same data to all.
with here as (
    select oid from pg_catalog.pg_database where datname = current_database()
),

maker as (
    select oid from pg_catalog.pg_roles where rolname = {name}
)

select
    'more than ownership ties its role to '
    || pg_catalog.pg_describe_object(
        dependency.classid, dependency.objid, dependency.objsubid
    ) as reason
from pg_catalog.pg_shdepend as dependency
where
    dependency.dbid = (select oid from here)
    and dependency.refclassid = 'pg_catalog.pg_authid'::regclass
    and dependency.refobjid = (select oid from maker)
    and (
        dependency.deptype <> 'o'
        or dependency.classid in (
            'pg_catalog.pg_default_acl'::regclass, 'pg_catalog.pg_user_mapping'::regclass
        )
    )

union all

select 'rows are in ' || class.oid::regclass as reason
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
where setting.setdatabase = (select oid from here) or setting.setrole = (select oid from maker);

-- name: retire_maker
-- Nobody logs in as the role any more, and it owns nothing that is shared.
alter role {database} with nologin password null;
alter database {database} owner to current_user; -- noqa: PRS

-- name: close_template
-- Nobody gets in, so that it can always be copied.
alter database {database} with allow_connections false is_template true; -- noqa: PRS

-- name: publish
-- The last step: by this name it is looked for.
alter database {database} rename to {template}; -- noqa: PRS

-- name: unprotect
-- A template can't be dropped.
alter database {database} with is_template false; -- noqa: PRS

-- name: drop_unused
-- Without force: what somebody is in stays.
drop database if exists {database}; -- noqa: PRS
