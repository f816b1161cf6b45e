-- report_limit: what a response said about a bucket (see apply_response) and other workers should
-- know at once: the first response of a window, and each that refused us. All others are reported
-- with reserve_requests. Safe to repeat.
create or replace function pgworker.report_limit(
    p_credential text,
    p_scope text,
    p_endpoint text,
    p_opened_at timestamptz,
    p_ceiling integer,
    p_used integer,
    p_ends_after timestamptz,
    p_ends_before timestamptz
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_bucket pgworker.rate_limits;
begin
    perform set_config('synchronous_commit', 'off', true);

    v_bucket := pgworker.lock_bucket(p_credential, p_scope, p_endpoint, p_make => true);
    v_bucket := pgworker.apply_response(
        v_bucket,
        clock_timestamp(),
        p_opened_at,
        p_ceiling,
        p_used,
        p_ends_after,
        p_ends_before
    );

    perform pgworker.store_bucket(v_bucket);
end
$$;
