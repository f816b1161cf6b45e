-- heartbeat: the worker is alive; renews the leases of the jobs that it names. Returns the jobs
-- that it did not renew. is_lost: the caller no longer holds the job; its phase must stop and write
-- nothing. Otherwise another session has locked the job's row: the lease isn't longer, and the next
-- heartbeat tries again. One locked row never holds up the leases of the others. A lease that ran
-- out is renewed too as long as no other worker has claimed the job. A lease never becomes shorter:
-- begin_step may have made it outlast a request, and a heartbeat during that request must not open
-- the job to a second worker, which would send a second one.
create or replace function pgworker.heartbeat(
    p_worker text,
    p_lease interval,
    p_job_ids bigint[],
    p_claim_tokens bigint[]
)
returns table (job_id bigint, is_lost boolean)
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    return query
    with seen as (
        update pgworker.workers
        set
            last_seen_at = now(),
            jobs_when_silent = null
        where id = p_worker
    ),

    -- Locked in the order of ids, as every statement over several jobs does, so that
    -- two of one worker's statements cannot wait for each other in a circle.
    held as (
        select job.id, job.status
        from public.client_provisioning_jobs as job
        inner join unnest(p_job_ids, p_claim_tokens) as named (job_id, claim_token)
            on job.id = named.job_id and job.claim_token = named.claim_token
        order by job.id
        for update of job skip locked
    ),

    renewed as (
        update public.client_provisioning_jobs as job
        set lease_expires_at = greatest(job.lease_expires_at, now() + p_lease)
        from held
        where
            job.id = held.id
            and held.status = 'running'
        returning job.id
    )

    select
        named.job_id,
        job.id is null
    from unnest(p_job_ids, p_claim_tokens) as named (job_id, claim_token)
    left join public.client_provisioning_jobs as job
        on
            named.job_id = job.id
            and named.claim_token = job.claim_token
            and coalesce(job.status, '') = 'running'
    where named.job_id not in (select renewed.id from renewed);
end
$$;
