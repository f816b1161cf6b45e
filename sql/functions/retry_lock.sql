-- retry_lock: whether the client of a job that was put aside is free now. While it isn't, the job
-- waits for another moment, so that it holds up no other job.
create or replace function pgworker.retry_lock(
    p_job_id bigint,
    p_client_id uuid
)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if pgworker.client_is_free(p_client_id) then
        return true;
    end if;

    update public.client_provisioning_jobs as job
    set run_at = now() + interval '1 second'
    where
        job.id in (
            select aside.id
            from public.client_provisioning_jobs as aside
            where aside.id = p_job_id
            for update skip locked
        );

    return false;
end
$$;
