-- retry_group: failed -> queued for every failed job of the group (failed_groups), at the phase
-- that failed. Returns how many; a job that is no longer failed is left alone.
create or replace function pgworker.retry_group(
    p_group text
)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ids bigint[];
    v_count integer;
begin
    -- Locked in the order of their ids, as in every statement over several jobs.
    v_ids := array(
        select job.id
        from public.client_provisioning_jobs as job
        where
            job.status = 'failed'
            and pgworker.failure_group(job.workflow, job.job_type, job.error_kind, job.last_error)
            = p_group
        order by job.id
        for update
    );

    -- The statement that people type, for many jobs: the trigger job_reset does the rest.
    update public.client_provisioning_jobs as job
    set
        attempts = 0,
        claimed_at = null
    where job.id = any(v_ids);

    get diagnostics v_count = row_count;

    return v_count;
end
$$;
