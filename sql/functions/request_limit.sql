-- request_limit: how many requests a window of the bucket takes. Ten until the server has
-- reported its limit: enough to learn it, too few to do harm if it is less than the documented
-- 120.
create or replace function pgworker.request_limit(p_bucket pgworker.rate_limits)
returns integer
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce((p_bucket).ceiling, 10);
$$;
