-- name: surroundings
-- The role that we are, what it may do here, and what is here already.
select
    current_user::text as role,
    to_regclass('public.clients') is not null as has_clients,
    to_regclass('public.client_provisioning_jobs') is not null as has_jobs,
    exists(
        select 1
        from pg_catalog.pg_namespace as namespace
        where namespace.nspname = 'pgworker'
    ) as has_schema,
    to_regclass('pgworker.schema_history') is not null as has_history,
    has_database_privilege(current_database(), 'create') as may_create_schemas,
    (
        select
            has_schema_privilege(namespace.oid, 'usage')
            and has_schema_privilege(namespace.oid, 'create')
        from pg_catalog.pg_namespace as namespace
        where namespace.nspname = 'pgworker'
    ) as may_use_schema,
    has_schema_privilege('public', 'create') as may_create_tables,
    current_database()::text as database;

-- name: table_facts
-- The table `clients` as it is; no row when there is none.
select
    class.relkind::text as kind,
    class.relpersistence::text as persistence,
    class.relispartition as is_partition,
    coalesce(pg_get_partkeydef(class.oid), '') as partition_key,
    class.reloftype <> 0 as is_typed,
    pg_get_userbyid(class.relowner)::text as owner,
    pg_has_role(class.relowner, 'usage') as is_owner,
    class.relkind = 'r' and class.reloptions is null as takes_fillfactor,
    greatest(class.reltuples, 0)::bigint as estimated_rows,
    pg_relation_size(class.oid) as size_bytes,
    array(
        select child.inhrelid::regclass::text
        from pg_catalog.pg_inherits as child
        where child.inhparent = class.oid and class.relkind = 'r'
        order by child.inhrelid::regclass::text
    ) as children,
    array(
        select rule.rulename::text
        from pg_catalog.pg_rewrite as rule
        -- 2: update, 3: insert.
        where rule.ev_class = class.oid and rule.ev_type in ('2', '3')
        order by rule.rulename
    ) as rules,
    array(
        select wanted.privilege
        from (
            values ('select'), ('insert'), ('update'), ('references'), ('trigger')
        ) as wanted (privilege)
        where not has_table_privilege(class.oid, wanted.privilege)
    ) as missing_privileges
from pg_catalog.pg_class as class
where class.oid = to_regclass('public.clients');

-- name: columns
-- Those of `clients`, in their order.
select
    attribute.attname::text as name,
    type.typname::text as type,
    format_type(attribute.atttypid, attribute.atttypmod) as declared,
    case when type.typname = 'varchar' and attribute.atttypmod >= 4 then attribute.atttypmod - 4 end
        as length,
    attribute.attgenerated <> '' as is_generated,
    attribute.attnotnull as is_not_null,
    attribute.atthasdef or attribute.attidentity <> '' as has_default,
    coalesce(pg_get_expr(value.adbin, value.adrelid), '') as default_value
from pg_catalog.pg_attribute as attribute
inner join pg_catalog.pg_type as type on attribute.atttypid = type.oid
left join pg_catalog.pg_attrdef as value
    on attribute.attrelid = value.adrelid and attribute.attnum = value.adnum
where
    attribute.attrelid = to_regclass('public.clients')
    and attribute.attnum > 0
    and not attribute.attisdropped
order by attribute.attnum;

-- name: unique_indexes
-- Those of `clients`, with the names of their key columns; an expression's is empty.
select
    class.relname::text as name,
    index.indisprimary as is_primary,
    index.indimmediate as is_immediate,
    index.indisvalid as is_valid,
    index.indpred is not null as is_partial,
    array(
        select coalesce(attribute.attname::text, '')
        from unnest(index.indkey::smallint[]) with ordinality as key (attnum, position)
        left join pg_catalog.pg_attribute as attribute
            on attribute.attrelid = index.indrelid and key.attnum = attribute.attnum
        where key.position <= index.indnkeyatts
        order by key.position
    ) as columns
from pg_catalog.pg_index as index
inner join pg_catalog.pg_class as class on index.indexrelid = class.oid
where
    index.indrelid = to_regclass('public.clients')
    and index.indisunique
order by class.relname;

-- name: status_checks
-- Checks of `clients` that look at provisioning_status alone.
select
    checked.conname::text as name,
    pg_get_expr(checked.conbin, checked.conrelid) as expression,
    -- Without a length: a cast would cut the statuses.
    format_type(attribute.atttypid, null) as type
from pg_catalog.pg_constraint as checked
inner join pg_catalog.pg_attribute as attribute
    on checked.conrelid = attribute.attrelid and attribute.attname = 'provisioning_status'
where
    checked.conrelid = to_regclass('public.clients')
    and checked.contype = 'c'
    and checked.conkey = array[attribute.attnum];

-- name: refused_statuses
-- Which of these statuses a check refuses. With the check's own text in it, and in a function's
-- place: the database evaluates it, whatever it is.
select clients.provisioning_status::text as status
from (
    select known.status::{type} as provisioning_status  -- noqa: PRS
    from unnest($1::text[]) as known (status)
) as clients
where not ({expression});  -- noqa: PRS

-- name: secured_tables
-- Tables of ours and `clients`, where row level security applies to the role that we are.
select
    format('%I.%I', namespace.nspname, class.relname) as name,
    pg_get_userbyid(class.relowner)::text as owner,
    pg_has_role(class.relowner, 'usage') as is_owner
from pg_catalog.pg_class as class
inner join pg_catalog.pg_namespace as namespace on class.relnamespace = namespace.oid
where
    (
        class.oid in (
            to_regclass('public.clients'), to_regclass('public.client_provisioning_jobs')
        )
        or namespace.nspname = 'pgworker'
    )
    and class.relkind in ('r', 'p')
    and row_security_active(class.oid)
order by class.oid;

-- name: policies
-- Those that apply to the role that we are, on these tables.
select
    format('%I.%I', namespace.nspname, class.relname) as table_name,
    policy.polcmd::text as command,
    policy.polpermissive as is_permissive,
    coalesce(pg_get_expr(policy.polqual, policy.polrelid), '') as shown_if,
    coalesce(pg_get_expr(policy.polwithcheck, policy.polrelid), '') as stored_if
from pg_catalog.pg_policy as policy
inner join pg_catalog.pg_class as class on policy.polrelid = class.oid
inner join pg_catalog.pg_namespace as namespace on class.relnamespace = namespace.oid
where
    format('%I.%I', namespace.nspname, class.relname) = any($1::text[])
    and exists (
        select 1
        from unnest(policy.polroles) as role (oid)
        where role.oid = 0 or pg_has_role(role.oid, 'usage')
    );
