-- reconcile_show: gives a client that shows no ref the one that the ledger records, and its URL.
-- Returns false, and changes nothing, when the client shows one or the ledger records another.
create or replace function pgworker.reconcile_show(
    p_client_id uuid,
    p_ref text,
    p_url text
)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
begin
    update public.clients as client
    set
        project_ref = p_ref,
        project_url = p_url,
        updated_at = now()
    where
        client.id = p_client_id
        and client.project_ref is null
        and exists (
            select 1
            from pgworker.intents as intent
            where
                intent.client_id = p_client_id
                and intent.kind = 'tenant'
                and intent.ref = p_ref
        );

    if not found then
        return false;
    end if;

    insert into pgworker.event_log (event, actor, client_id, detail)
    values (
        'reconciled', pgworker.actor(), p_client_id,
        jsonb_build_object('remedy', 'show', 'ref', p_ref)
    );

    return true;
end
$$;
