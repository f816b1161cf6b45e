-- learn_limit: what an answer told of a bucket (see with_answer) that others should know at
-- once: the first answer of a window, and any that refused us. All others go along with
-- take_requests. Safe to repeat.
create or replace function pgworker.learn_limit(
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
    v_bucket := pgworker.with_answer(
        v_bucket,
        clock_timestamp(),
        p_opened_at,
        p_ceiling,
        p_used,
        p_ends_after,
        p_ends_before
    );

    update pgworker.rate_limits as bucket
    set
        ceiling = v_bucket.ceiling,
        span = v_bucket.span,
        opened_at = v_bucket.opened_at,
        resets_at = v_bucket.resets_at,
        is_told = v_bucket.is_told,
        used = v_bucket.used,
        refused = v_bucket.refused
    where
        bucket.credential = p_credential
        and bucket.scope = p_scope
        and bucket.endpoint = p_endpoint;
end
$$;
