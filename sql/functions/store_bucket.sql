-- store_bucket: writes back a row from lock_bucket with its new values.
create or replace function pgworker.store_bucket(p_bucket pgworker.rate_limits)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    update pgworker.rate_limits as bucket
    set
        ceiling = p_bucket.ceiling,
        span = p_bucket.span,
        opened_at = p_bucket.opened_at,
        resets_at = p_bucket.resets_at,
        end_is_known = p_bucket.end_is_known,
        used = p_bucket.used,
        refused = p_bucket.refused
    where
        bucket.credential = p_bucket.credential
        and bucket.scope = p_bucket.scope
        and bucket.endpoint = p_bucket.endpoint;
end
$$;
