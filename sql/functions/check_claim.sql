-- check_claim: takes part in a worker's own transaction. Locks the job until commit, so that
-- what the transaction writes outside the jobs table is written by the holder or not at
-- all. Raises PW001 when p_claim_token is not the current one.
create or replace function pgworker.check_claim(
    p_job_id bigint,
    p_claim_token bigint
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform 1
    from public.client_provisioning_jobs as job
    where
        job.id = p_job_id
        and job.status = 'running'
        and job.claim_token = p_claim_token
    for update;

    if not found then
        raise exception 'job % is not held with claim token %', p_job_id, p_claim_token
            using errcode = 'PW001';
    end if;
end
$$;
