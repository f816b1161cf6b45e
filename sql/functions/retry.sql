-- retry: failed -> queued, at the phase that failed and with its checkpoint; or, for a client
-- whose last job was cancelled, a new job. Returns the job's id.
-- Raises PW003 when there is no such client, PW002 when it has nothing to retry.
create or replace function pgworker.retry(
    p_client_id uuid
)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_job public.client_provisioning_jobs;
begin
    perform pgworker.require_client(p_client_id);

    select job.*
    into v_job
    from public.client_provisioning_jobs as job
    where job.client_id = p_client_id
    order by (job.status = 'failed') desc, job.id desc
    limit 1
    for update;

    if v_job.status = 'failed' then
        -- The statement that people type: the trigger job_reset does the rest.
        update public.client_provisioning_jobs
        set
            attempts = 0,
            claimed_at = null
        where id = v_job.id;

        return v_job.id;
    end if;

    if v_job.status = 'cancelled' then
        return pgworker.enqueue(p_client_id, v_job.workflow, v_job.priority);
    end if;

    raise exception 'client % has no failed job (%)', p_client_id, case
        when v_job.id is null then 'it has no job: select pgworker.enqueue(id) makes one'
        else 'its last one is ' || v_job.status
    end
        using errcode = 'PW002';
end
$$;
