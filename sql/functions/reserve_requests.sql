-- reserve_requests: may p_wanted requests be sent now? Up to that many are granted; no window
-- of a bucket grants more than the server takes, however many workers ask. The arguments
-- from p_opened_at on are what the newest answer told the caller (see apply_response; all
-- null: nothing), so that learning costs no statement of its own.
-- p_keep: count them even if the bucket has no row. Without, a bucket that nobody has
-- worried about stays without one, and everything is granted.
-- granted: the first so many of the caller's may go. asked_at: the moment, by this clock, to
-- which the caller ties its own. opened_at: the window that the granted ones belong to.
-- is_told: an answer has told when that window ends; if not, the caller's first one should
-- be reported at once. Whoever is refused comes back after wait, plus a part of spread
-- chosen at random: that is how long the bucket needs for all who were refused so far, so
-- that they come back as fast as they can be served, and not all at once.
-- Lasts for one transaction of one statement: its row is locked no longer, not even for
-- the disk. A crash forgets the last moments, and the server's next answer tells them.
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
    out is_told boolean,
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
        is_told := true;
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
        -- The server's next window begins with the first request that reaches it: not before
        -- this moment, so its end is guessed too early at worst by the time on the way.
        v_bucket.opened_at := v_now;
        v_bucket.resets_at := v_now + case
            when v_bucket.ceiling is null then interval '5 seconds'
            else coalesce(v_bucket.span, interval '1 minute')
        end;
        v_bucket.is_told := false;
        v_bucket.used := 0;
        v_bucket.refused := 0;
    end if;

    granted := greatest(0, least(p_wanted, pgworker.request_limit(v_bucket) - v_bucket.used));
    v_refused := p_wanted - granted;
    v_bucket.used := v_bucket.used + granted;
    opened_at := v_bucket.opened_at;
    is_told := v_bucket.is_told;
    wait := v_bucket.resets_at - v_now;
    spread := interval '0';

    if v_refused > 0 and v_bucket.ceiling is null and not v_bucket.is_told then
        -- The first answer is on its way, and will tell how many more may go.
        wait := least(wait, interval '0.25 seconds');
    elsif v_refused > 0 then
        v_bucket.refused := v_bucket.refused + v_refused;
        spread := coalesce(v_bucket.span, interval '1 minute')
        * (v_bucket.refused::double precision / pgworker.request_limit(v_bucket));
    end if;

    perform pgworker.store_bucket(v_bucket);
end
$$;
