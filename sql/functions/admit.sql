-- admit: may a job use this credential now? A null wait: yes. Otherwise the provider
-- refuses it, for the reason given. When the time of an open breaker has come, exactly
-- one caller is let through as its probe (p_probe_every later the next, if that one never
-- reports).
create or replace function pgworker.admit(
    p_credential text,
    p_probe_every interval,
    out wait interval,
    out reason text,
    out is_probe boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_breaker pgworker.breakers;
begin
    is_probe := false;

    select breaker.*
    into v_breaker
    from pgworker.breakers as breaker
    where breaker.credential = p_credential;

    if not found then
        return;
    end if;

    reason := v_breaker.reason;

    update pgworker.breakers as breaker
    set
        probe_at = now() + p_probe_every,
        probes = breaker.probes + 1
    where
        breaker.credential = p_credential
        and breaker.probe_at <= now();

    is_probe := found;

    if not is_probe then
        wait := greatest(v_breaker.probe_at - now(), interval '1 second');
    end if;
end
$$;
