-- reserve_requests: grants up to p_wanted requests to be sent now. However many workers ask, no
-- window of a bucket grants more than the server accepts. The arguments from p_opened_at on are
-- what the newest response reported to the caller (see apply_response; all null: nothing), so that
-- reporting it costs no statement of its own.
--
-- p_keep: count the requests even if the bucket has no row. Without it, a bucket that has no row
-- stays without one, and everything is granted.
--
-- granted: this many of the caller's requests may be sent. asked_at: the moment, by this clock,
-- to which the caller ties its own. opened_at: the window that the granted ones belong to.
-- end_is_known: a response has reported when that window ends; if not, the response to the caller's
-- first request should be reported at once. A refused caller asks again after wait, plus a random
-- part of spread: that is how long the bucket needs for all that were refused so far, so that
-- they come back as fast as they can be served, and not all at once.
--
-- Lasts for one transaction of one statement: its row is locked no longer, not even for the disk.
-- A crash forgets the last moments, and the server's next response reports them again.
create or replace function pgworker.reserve_requests(
    p_credential text,
    p_scope text,
    p_endpoint text,
    p_wanted integer,
    p_keep boolean,
    p_opened_at timestamptz,
    p_ceiling integer,
    p_used integer,
    p_ends_after timestamptz,
    p_ends_before timestamptz,
    out granted integer,
    out asked_at timestamptz,
    out opened_at timestamptz,
    out end_is_known boolean,
    out wait interval,
    out spread interval
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_bucket pgworker.rate_limits;
    v_now timestamptz;
    v_refused integer;
begin
    v_bucket := pgworker.lock_bucket(p_credential, p_scope, p_endpoint, p_keep);

    if v_bucket.credential is null then
        granted := p_wanted;
        asked_at := clock_timestamp();
        end_is_known := true;
        return;
    end if;

    perform set_config('synchronous_commit', 'off', true);

    -- Not now(): the transaction may have waited for the lock since.
    v_now := clock_timestamp();
    asked_at := v_now;

    if p_ends_before is not null then
        v_bucket := pgworker.apply_response(
            v_bucket, v_now, p_opened_at, p_ceiling, p_used, p_ends_after, p_ends_before
        );
    end if;

    if v_bucket.resets_at <= v_now then
        -- The server's next window begins with the first request that reaches it: not before this
        -- moment, so that the guessed end is too early at most by the time under way.
        v_bucket.opened_at := v_now;
        v_bucket.resets_at := v_now + case
            when v_bucket.ceiling is null then interval '5 seconds'
            else coalesce(v_bucket.span, interval '1 minute')
        end;
        v_bucket.end_is_known := false;
        v_bucket.used := 0;
        v_bucket.refused := 0;
    end if;

    granted := greatest(0, least(p_wanted, pgworker.request_limit(v_bucket) - v_bucket.used));
    v_refused := p_wanted - granted;
    v_bucket.used := v_bucket.used + granted;
    opened_at := v_bucket.opened_at;
    end_is_known := v_bucket.end_is_known;
    wait := v_bucket.resets_at - v_now;
    spread := interval '0';

    if v_refused > 0 and v_bucket.ceiling is null and not v_bucket.end_is_known then
        -- The first response is under way, and will report how many more may be sent.
        wait := least(wait, interval '0.25 seconds');
    elsif v_refused > 0 then
        v_bucket.refused := v_bucket.refused + v_refused;
        spread := coalesce(v_bucket.span, interval '1 minute')
        * (v_bucket.refused::double precision / pgworker.request_limit(v_bucket));
    end if;

    perform pgworker.store_bucket(v_bucket);
end
$$;
