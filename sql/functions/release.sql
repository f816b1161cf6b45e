-- release: running -> queued, for jobs held by their callers, by a worker that leaves; no attempt
-- is counted. Arrays are parallel. Returns the ids that were refused (stale claim token). Wakes
-- the other workers.
create or replace function pgworker.release(
    p_job_ids bigint[],
    p_claim_tokens bigint[]
)
returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    with held as (
        select job.id, job.claimed_by
        from public.client_provisioning_jobs as job
        inner join unnest(p_job_ids, p_claim_tokens) as input (job_id, claim_token)
            on job.id = input.job_id and job.claim_token = input.claim_token
        where job.status = 'running'
        order by job.id
        for update of job skip locked
    ),

    released as (
        update public.client_provisioning_jobs as job
        set
            status = 'queued',
            run_at = now(),
            claimed_at = null,
            claimed_by = null,
            lease_expires_at = null,
            updated_at = now()
        from held
        where job.id = held.id
        returning job.*, held.claimed_by as actor
    ),

    logged as (
        insert into pgworker.event_log (
            event, actor, client_id, job_id, workflow, claim_token,
            from_status, to_status, from_phase, to_phase
        )
        select
            'released', actor, client_id, id, workflow, claim_token,
            'running', 'queued', job_type, job_type
        from released
    )

    select named.job_id
    from unnest(p_job_ids) as named (job_id)
    where named.job_id not in (select released.id from released);

    perform pg_notify('pgworker', 'released');
end
$$;
