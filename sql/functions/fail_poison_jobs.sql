-- fail_poison_jobs: running -> failed, for jobs whose holder fell silent once more after
-- p_max_crashes - 1 rescues in the present phase: whatever kills the workers, a further
-- one will not survive it either. Part of claim.
create or replace function pgworker.fail_poison_jobs(
    p_worker text,
    p_max_crashes integer
)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    with poisonous as (
        select job.id
        from public.client_provisioning_jobs as job
        where
            job.status = 'running'
            and job.lease_expires_at <= now()
            and job.crashes + 1 >= p_max_crashes
        order by job.id
        for update skip locked
    ),

    failed as (
        update public.client_provisioning_jobs as job
        set
            status = 'failed',
            crashes = job.crashes + 1,
            claim_token = job.claim_token + 1,
            claimed_at = null,
            claimed_by = null,
            lease_expires_at = null,
            error_kind = 'permanent',
            last_error = format(
                'the worker fell silent %s times in phase %s (killed, out of memory or frozen); look at its log, then retry',
                job.crashes + 1, job.job_type
            ),
            finished_at = now(),
            updated_at = now()
        from poisonous
        where job.id = poisonous.id
        returning job.*
    ),

    logged as (
        insert into pgworker.event_log (
            event, actor, client_id, job_id, workflow, claim_token,
            from_status, to_status, from_phase, to_phase, error_kind, error
        )
        select
            'failed', p_worker, client_id, id, workflow, claim_token,
            'running', 'failed', job_type, job_type, error_kind, last_error
        from failed
    )

    update public.clients as client
    set
        provisioning_status = 'failed',
        provisioning_error = failed.last_error,
        updated_at = now()
    from failed
    where
        client.id = failed.client_id
        and failed.workflow = 'provision';
$$;
