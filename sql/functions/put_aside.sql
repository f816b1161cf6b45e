-- put_aside: queued, waiting or silent -> waiting for a moment, because another session has
-- locked the client's row: the job is claimed once the row is free (`retry_lock`). Neither an
-- attempt nor a crash. One event is recorded, however long the lock lasts.
create or replace function pgworker.put_aside(
    p_worker text,
    p_job_id bigint
)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    with before as (
        select
            job.id,
            job.status,
            job.wait_code
        from public.client_provisioning_jobs as job
        where job.id = p_job_id
    ),

    aside as (
        update public.client_provisioning_jobs as job
        set
            status = 'waiting',
            run_at = now() + interval '1 second',
            wait_code = 'client_locked',
            waiting_for = format(
                'its row in clients, which %s has locked',
                coalesce(pgworker.lock_holder(job.client_id), 'another session')
            ),
            claim_token = job.claim_token + 1,
            claimed_at = null,
            claimed_by = null,
            lease_expires_at = null,
            updated_at = now()
        from before
        where job.id = before.id
        returning job.*, before.status as from_status, before.wait_code as previous_wait_code
    )

    insert into pgworker.event_log (
        event, actor, client_id, job_id, workflow, claim_token,
        from_status, to_status, from_phase, to_phase, detail
    )
    select
        'snoozed', p_worker, client_id, id, workflow, claim_token,
        from_status, 'waiting', job_type, job_type,
        jsonb_build_object('run_at', run_at, 'waiting_for', waiting_for)
    from aside
    where previous_wait_code is null;
$$;
