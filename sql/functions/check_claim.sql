-- check_claim: raises PW001 unless p_claim_token is the current one of a running job. Locks the
-- job until commit, so that what else the caller's transaction writes is written by the holder of
-- the job or not at all.
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
