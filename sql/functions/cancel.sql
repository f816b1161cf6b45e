-- cancel: queued, waiting, running or failed -> cancelled, for every such job of the client; a
-- holder loses the fence. What exists outside stays. Returns the number of jobs.
-- Raises PW003 when there is no such client.
create or replace function pgworker.cancel(
    p_client_id uuid
)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
    v_count integer;
begin
    perform pgworker.require_client(p_client_id);

    with live as (
        select job.id, job.status
        from public.client_provisioning_jobs as job
        where
            job.client_id = p_client_id
            and job.status in ('queued', 'waiting', 'running', 'failed')
        order by job.id
        for update
    ),

    cancelled as (
        update public.client_provisioning_jobs as job
        set
            status = 'cancelled',
            claim_token = job.claim_token + 1,
            claimed_at = null,
            claimed_by = null,
            lease_expires_at = null,
            waiting_for = null,
            finished_at = now(),
            updated_at = now()
        from live
        where job.id = live.id
        returning job.*, live.status as from_status
    ),

    logged as (
        insert into pgworker.event_log (
            event, actor, client_id, job_id, workflow, claim_token,
            from_status, to_status, from_phase, to_phase
        )
        select
            'cancelled', pgworker.actor(), client_id, id, workflow, claim_token,
            from_status, 'cancelled', job_type, job_type
        from cancelled
    ),

    shown as (
        update public.clients as client
        set
            provisioning_status = 'cancelled',
            updated_at = now()
        where
            client.id = p_client_id
            and exists (select 1 from cancelled where workflow = 'provision')
    )

    select count(*)
    into v_count
    from cancelled;

    return v_count;
end
$$;
