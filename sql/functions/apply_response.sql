-- apply_response: a bucket as an answer of the server tells of it. Pure: writes nothing.
-- p_opened_at is the window that the request was taken from (null: none). The answer's
-- window ends between p_ends_after and p_ends_before: the server tells whole seconds left,
-- and the answer was on its way for a while. p_used counts the requests of
-- everybody with this credential, the one answered included; null: all are used up.
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
        -- The server told whole seconds, and a moment has passed since.
        p_bucket.span := greatest(
            p_bucket.span,
            make_interval(secs => round(extract(epoch from p_ends_before - p_now)))
        );
    end if;

    if v_is_later and (p_bucket.is_told or not v_is_ours) then
        -- Even at the earliest it ends after ours must have: the server has begun another.
        p_bucket.opened_at := p_now;
        p_bucket.resets_at := p_ends_before;
        p_bucket.is_told := true;
        p_bucket.used := v_used;
        p_bucket.refused := 0;
    elsif v_is_ours or p_ends_before >= p_bucket.resets_at - interval '1 second' then
        -- Ours. Every answer tells an end that it doesn't outlast, our guess is none. What
        -- others used, and we didn't know of, is in p_used. Ours that are still on their way
        -- are not, hence the greater one.
        p_bucket.resets_at := case
            when p_bucket.is_told then least(p_bucket.resets_at, p_ends_before)
            else p_ends_before
        end;
        p_bucket.is_told := true;
        p_bucket.used := greatest(p_bucket.used, v_used);
    end if;

    -- Else it is a slow answer, of a window that is over.
    return p_bucket;
end
$$;
