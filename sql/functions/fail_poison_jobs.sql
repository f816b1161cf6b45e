-- fail_poison_jobs: running -> failed, for jobs whose holder fell silent once more after
-- p_max_crashes - 1 rescues in the present phase, where nothing else can be the cause
-- (`is_poison`): a further worker would not survive it either. A job whose client is locked waits
-- for its turn. Part of claim.
create or replace function pgworker.fail_poison_jobs(
    p_worker text,
    p_max_crashes integer
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_job public.client_provisioning_jobs;
begin
    for v_job in
        select job.*
        from public.client_provisioning_jobs as job
        where
            job.status = 'running'
            and job.lease_expires_at <= now()
            and job.crashes + 1 >= p_max_crashes
            and pgworker.is_poison(
                job.id, job.client_id, job.claimed_by, job.crashes + 1, p_max_crashes
            )
            and pgworker.client_is_free(job.client_id)
        order by job.id
        for update skip locked
    loop
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
        where job.id = v_job.id
        returning job.*
        into v_job;

        insert into pgworker.event_log (
            event, actor, client_id, job_id, workflow, claim_token,
            from_status, to_status, from_phase, to_phase, error_kind, error
        )
        values (
            'failed', p_worker, v_job.client_id, v_job.id, v_job.workflow, v_job.claim_token,
            'running', 'failed', v_job.job_type, v_job.job_type, 'permanent', v_job.last_error
        );

        -- Another workflow's failure leaves a client that is ready as it is.
        if v_job.workflow = 'provision' then
            perform pgworker.show_failure(v_job.client_id, v_job.last_error, true);
        end if;
    end loop;
end
$$;
