-- The anon role may read app_settings, and no other table.
select
    class.relname = 'app_settings' as is_meant_to_be_public,
    class.relname
from pg_catalog.pg_class as class
where
    class.relnamespace = 'public'::regnamespace
    and class.relkind in ('r', 'p')
    and has_table_privilege('anon', class.oid, 'select');
