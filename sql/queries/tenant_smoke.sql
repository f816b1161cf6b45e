-- name: versions_that_differ
-- Versions that only the tenant's history has, or only the canonical set; no row when they agree.
with canonical as (
    select unnest({versions}::text[]) as version -- noqa: PRS, LT09
)

select coalesce(history.version, canonical.version) as version
from canonical
full join supabase_migrations.schema_migrations as history
    on canonical.version = history.version
where canonical.version is null or history.version is null;

-- name: tables_without_row_level_security
-- Tables of schema public that any role with a grant reads whole. What belongs to an extension
-- (PostGIS has such a table) is left out: it isn't ours to change.
select class.relname as name
from pg_catalog.pg_class as class
where
    class.relnamespace = to_regnamespace('public')
    and class.relkind in ('r', 'p')
    and not class.relrowsecurity
    and not exists (
        select from pg_catalog.pg_depend as dependency
        where
            dependency.classid = 'pg_catalog.pg_class'::regclass
            and dependency.objid = class.oid
            and dependency.deptype = 'e'
    )
order by class.relname;
