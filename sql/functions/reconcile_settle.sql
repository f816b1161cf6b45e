-- reconcile_settle: records that the creates for a client without an outcome made nothing: a
-- complete look-up shows no result of them, and the newest one was begun longer than
-- p_settles_after ago. Returns false, and changes nothing, when that is no longer so, when the
-- tenant is recorded, or when the client has a live job, which looks for itself.
create or replace function pgworker.reconcile_settle(
    p_client_id uuid,
    p_settles_after interval
)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if
        exists (
            select 1
            from pgworker.intents as intent
            where intent.client_id = p_client_id and intent.ref is not null
        )
        or exists (
            select 1
            from public.client_provisioning_jobs as live
            where live.client_id = p_client_id and live.status in ('queued', 'running', 'waiting')
        )
        or exists (
            select 1
            from pgworker.steps as step
            where
                step.client_id = p_client_id
                and step.step = 'create_project'
                and step.state in ('intended', 'unknown')
                and step.intended_at >= now() - p_settles_after
        )
    then
        return false;
    end if;

    -- The state of a step that was looked up and not found. Not refused: should the tenant show
    -- up after all, it has the password that we hold.
    update pgworker.steps as step
    set
        state = 'repeated',
        ended_at = now()
    where
        step.client_id = p_client_id
        and step.step = 'create_project'
        and step.state in ('intended', 'unknown');

    if not found then
        return false;
    end if;

    insert into pgworker.event_log (event, actor, client_id, detail)
    values (
        'reconciled', pgworker.actor(), p_client_id,
        jsonb_build_object('remedy', 'settle')
    );

    return true;
end
$$;
