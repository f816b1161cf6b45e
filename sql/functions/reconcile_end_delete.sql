-- reconcile_end_delete: records the result of a deletion that reconcile_begin_delete let through.
-- p_error is null when it succeeded; then a create of that name that has no outcome in the ledger
-- is known to have happened.
create or replace function pgworker.reconcile_end_delete(
    p_provider text,
    p_ref text,
    p_name text,
    p_error text
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_error is null then
        update pgworker.steps as step
        set
            state = 'done',
            ended_at = now()
        from pgworker.intents as intent
        where
            intent.provider = p_provider
            and intent.name = p_name
            and intent.ref is null
            and step.client_id = intent.client_id
            and step.step = 'create_project'
            and step.target = p_name
            and step.state in ('intended', 'unknown');
    end if;

    insert into pgworker.event_log (event, actor, client_id, error, detail)
    values (
        case when p_error is null then 'tenant_deleted' else 'tenant_deletion_failed' end,
        pgworker.actor(),
        (
            select intent.client_id
            from pgworker.intents as intent
            where intent.provider = p_provider and intent.name = p_name
        ),
        p_error,
        jsonb_build_object('provider', p_provider, 'ref', p_ref, 'name', p_name)
    );
end
$$;
