-- open_breaker: the provider refuses the credential: until close_breaker one probe in
-- p_probe_every is let through (see admit). Safe to repeat. Returns whether it was closed.
create or replace function pgworker.open_breaker(
    p_credential text,
    p_reason text,
    p_probe_every interval
)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_was_open boolean;
begin
    perform 1
    from pgworker.breakers as breaker
    where breaker.credential = p_credential
    for update;

    v_was_open := found;

    insert into pgworker.breakers as breaker (credential, reason, probe_at)
    values (p_credential, p_reason, now() + p_probe_every)
    on conflict (credential) do update
        set
            reason = excluded.reason,
            probe_at = greatest(breaker.probe_at, excluded.probe_at);

    if not v_was_open then
        insert into pgworker.event_log (event, actor, error_kind, error, detail)
        values (
            'breaker_opened', 'sql:' || session_user, 'auth', p_reason,
            jsonb_build_object('credential', p_credential)
        );
    end if;

    return not v_was_open;
end
$$;
