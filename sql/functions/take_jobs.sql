-- take_jobs: queued, waiting or silent -> running, for these jobs, which the caller has locked. The
-- token grows with every claim, so that an earlier holder can no longer write to the job. Part of
-- claim.
-- A client's row may be locked by another session, or its platform's trigger may refuse the change:
-- then all of it is undone, and `claim_each` goes job by job. The claim waits only a moment for it.
create or replace function pgworker.take_jobs(
    p_worker text,
    p_lease interval,
    p_job_ids bigint[],
    p_rested bigint[],
    p_silent bigint[]
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
#variable_conflict use_column
begin
    -- By an array alone, without a join: ids that lie together are found in one pass over the index.
    with claimed as (
        update public.client_provisioning_jobs as job
        set
            status = 'running',
            claim_token = job.claim_token + 1,
            crashes = job.crashes + (job.id = any(p_silent))::integer,
            claimed_at = now(),
            claimed_by = p_worker,
            lease_expires_at = now() + p_lease,
            waiting_for = null,
            wait_code = null,
            updated_at = now()
        where job.id = any(p_job_ids)
        returning
            job.id,
            job.client_id,
            job.workflow,
            job.job_type,
            job.claim_token,
            case
                when job.id = any(p_silent) then 'running'
                when job.id = any(p_rested) then 'waiting'
                else 'queued'
            end as from_status
    ),

    logged as (
        insert into pgworker.event_log (
            event, actor, client_id, job_id, workflow, claim_token,
            from_status, to_status, from_phase, to_phase, detail
        )
        select
            case from_status when 'running' then 'rescued' else 'claimed' end,
            p_worker,
            client_id,
            id,
            workflow,
            claim_token,
            from_status,
            'running',
            job_type,
            job_type,
            case from_status
                when 'running'
                    then (
                        -- As the statement found it, before it was claimed.
                        select jsonb_build_object('silent_worker', before.claimed_by)
                        from public.client_provisioning_jobs as before
                        where before.id = claimed.id
                    )
            end
        from claimed
    )

    update public.clients as client
    set
        provisioning_status = phase.client_status,
        provisioning_started_at = coalesce(client.provisioning_started_at, now()),
        updated_at = now()
    from claimed
    inner join pgworker.phases as phase
        on claimed.workflow = phase.workflow and claimed.job_type = phase.job_type
    where
        client.id = claimed.client_id
        and client.provisioning_status is distinct from phase.client_status
        and phase.client_status is not null;
end
$$;
