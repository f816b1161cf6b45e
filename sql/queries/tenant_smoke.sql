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
-- Tables of schema public that any role with a grant can read whole. Tables of an extension
-- (PostGIS has one) are left out: they aren't ours to change.
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

-- name: assert_rows
-- Fails unless the query returns no row, or only rows whose first column is true; leaves nothing
-- behind. The result is an error, since a script returns no rows. row_to_json keeps the order of
-- the columns, which jsonb doesn't.
begin read only; -- noqa: PRS

set local statement_timeout = '30s';

set local lock_timeout = '4s';

do language plpgsql $body$
declare
    v_row record;
    v_number integer := 0;
    v_first text;
begin
    for v_row in execute {query} loop
        v_number := v_number + 1;
        select value::text into v_first
        from pg_catalog.json_each(pg_catalog.row_to_json(v_row))
        limit 1;

        if v_first is distinct from 'true' then
            raise exception 'row % is not true: %',
                v_number, pg_catalog.left(pg_catalog.row_to_json(v_row)::text, 200)
                using errcode = '{not_true}';
        end if;
    end loop;
end
$body$;

rollback;
