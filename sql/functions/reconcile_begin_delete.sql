-- reconcile_begin_delete: records that a person is about to delete a tenant without an owner.
-- Returns null when it may be deleted; otherwise the reason why not, and then nothing is
-- recorded. A retry that comes later than this check may still adopt what is being deleted: its
-- next phase finds the tenant gone, and the job fails for a person to see.
create or replace function pgworker.reconcile_begin_delete(
    p_provider text,
    p_ref text,
    p_name text
)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_client_id uuid;
begin
    select client.id
    into v_client_id
    from public.clients as client
    left join pgworker.intents as intent
        on client.id = intent.client_id and intent.kind = 'tenant'
    where client.project_ref = p_ref or intent.ref = p_ref
    limit 1;

    if found then
        return format('it is the tenant of client %s', v_client_id);
    end if;

    select intent.client_id
    into v_client_id
    from pgworker.intents as intent
    where intent.provider = p_provider and intent.name = p_name and intent.ref is null;

    if
        found
        and exists (
            select 1
            from public.client_provisioning_jobs as live
            where live.client_id = v_client_id and live.status in ('queued', 'running', 'waiting')
        )
    then
        return format('a job of client %s is unfinished and may adopt it', v_client_id);
    end if;

    insert into pgworker.event_log (event, actor, client_id, detail)
    values (
        'tenant_deletion_began', pgworker.actor(), v_client_id,
        jsonb_build_object('provider', p_provider, 'ref', p_ref, 'name', p_name)
    );

    return null;
end
$$;
