-- open_breaker: the provider refuses the credential: until close_breaker one probe in
-- p_probe_every is let through (see admit). Safe to repeat. Returns whether it was closed:
-- of many callers that are refused in one moment exactly one hears so, and logs it.
create or replace function pgworker.open_breaker(
    p_credential text,
    p_reason text,
    p_probe_every interval
)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    loop
        -- Who opens it is decided by the insert alone. A look before it would find nothing for
        -- all who look before the first one commits.
        insert into pgworker.breakers (credential, reason, probe_at)
        values (p_credential, p_reason, now() + p_probe_every)
        on conflict (credential) do nothing;

        if found then
            insert into pgworker.event_log (event, actor, error_kind, error, detail)
            values (
                'breaker_opened', pgworker.actor(), 'auth', p_reason,
                jsonb_build_object('credential', p_credential)
            );

            return true;
        end if;

        update pgworker.breakers as breaker
        set
            reason = p_reason,
            probe_at = greatest(breaker.probe_at, now() + p_probe_every)
        where breaker.credential = p_credential;

        if found then
            return false;
        end if;
        -- It was closed between the two statements: open it anew.
    end loop;
end
$$;
