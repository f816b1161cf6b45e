-- reconcile_retry: queues a client's failed job again, because its next try adopts what p_ref
-- names. Returns false, and changes nothing, when the client has no failed job any more: a job
-- that a person cancelled stays cancelled.
create or replace function pgworker.reconcile_retry(
    p_client_id uuid,
    p_ref text
)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Locked: a cancel that comes now waits, and one that came before is seen.
    perform 1
    from public.client_provisioning_jobs as job
    where job.client_id = p_client_id and job.status = 'failed'
    for update;

    if not found then
        return false;
    end if;

    insert into pgworker.event_log (event, actor, client_id, job_id, detail)
    values (
        'reconciled', pgworker.actor(), p_client_id, pgworker.retry(p_client_id),
        jsonb_build_object('remedy', 'retry', 'ref', p_ref)
    );

    return true;
end
$$;
