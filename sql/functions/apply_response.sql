-- apply_response: a bucket as it is after a response of the server. Pure: writes nothing.
-- p_opened_at is the window that the request was taken from (null: none). The window of the
-- response ends between p_ends_after and p_ends_before: the server reports whole seconds, and the
-- response was under way for a while. p_used counts the requests of all users of this credential,
-- the one answered included; null: all are used up.
create or replace function pgworker.apply_response(
    p_bucket pgworker.rate_limits,
    p_now timestamptz,
    p_opened_at timestamptz,
    p_ceiling integer,
    p_used integer,
    p_ends_after timestamptz,
    p_ends_before timestamptz
)
returns pgworker.rate_limits
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_is_ours boolean := p_opened_at is not distinct from p_bucket.opened_at;
    v_is_later boolean := p_ends_after > p_bucket.resets_at;
    v_used integer;
begin
    p_bucket.ceiling := coalesce(p_ceiling, p_bucket.ceiling);
    v_used := coalesce(p_used, pgworker.request_limit(p_bucket));

    if p_used is not null then
        -- The server reported whole seconds, and a moment has passed since.
        p_bucket.span := greatest(
            p_bucket.span,
            make_interval(secs => round(extract(epoch from p_ends_before - p_now)))
        );
    end if;

    if v_is_later and (p_bucket.end_is_known or not v_is_ours) then
        -- Even its earliest end is later than ours can be: the server has begun another window.
        p_bucket.opened_at := p_now;
        p_bucket.resets_at := p_ends_before;
        p_bucket.end_is_known := true;
        p_bucket.used := v_used;
        p_bucket.refused := 0;
    elsif v_is_ours or p_ends_before >= p_bucket.resets_at - interval '1 second' then
        -- Our window. Each response reports an end that the window doesn't outlast; our guess is
        -- no such bound. Requests of others that we didn't know of are in p_used. Requests of
        -- ours that are still under way are not, hence the greater one.
        p_bucket.resets_at := case
            when p_bucket.end_is_known then least(p_bucket.resets_at, p_ends_before)
            else p_ends_before
        end;
        p_bucket.end_is_known := true;
        p_bucket.used := greatest(p_bucket.used, v_used);
    end if;

    -- Otherwise it is a slow response, of a window that is over.
    return p_bucket;
end
$$;
