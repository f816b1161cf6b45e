-- An interrupted `create index concurrently` leaves one behind.
select
    false as is_valid,
    index.indexrelid::regclass as name
from pg_catalog.pg_index as index
where not index.indisvalid;
