-- name: readable_tables
-- The tables of schema public of a tenant, and the roles that may read them through the Data API
-- by their GRANTs.
select
    class.relname as name,
    has_schema_privilege('anon', class.relnamespace, 'usage')
    and has_table_privilege('anon', class.oid, 'select') as anon_may_read,
    has_schema_privilege('service_role', class.relnamespace, 'usage')
    and has_table_privilege('service_role', class.oid, 'select') as service_role_may_read
from pg_catalog.pg_class as class
where
    class.relnamespace = 'public'::pg_catalog.regnamespace
    and class.relkind in ('r', 'p')
order by class.relname;
