-- open_breaker: the provider refuses the credential: until close_breaker one probe every
-- p_probe_every is let through (see admit). Safe to repeat. Returns whether the breaker was
-- closed before: of many callers that are refused at the same moment exactly one gets true, and
-- logs it.
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
        -- The insert alone decides which caller opens it. A look before it would find nothing for
        -- all callers that look before the first one commits.
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
        -- It was closed between the two statements: open it again.
    end loop;
end
$$;
