-- complete: running -> succeeded, for jobs held by their callers; a client whose workflow is
-- provision becomes ready and loses its error. Arrays are parallel; a null patch or checkpoint
-- changes nothing. p_worker is the holder's name for the audit trail. Returns the ids that were
-- refused (stale claim token): their callers must stop without writing anything. A lease that ran
-- out still counts as long as no other worker has claimed the job: the work is done, keep it. A
-- repeat, after an answer that got lost, finds the job succeeded under the same token, changes
-- nothing and is not refused.
create or replace function pgworker.complete(
    p_job_ids bigint[],
    p_claim_tokens bigint[],
    p_patches jsonb[],
    p_checkpoints jsonb[],
    p_worker text default null
)
returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set lock_timeout = '1s'
as $$
#variable_conflict use_column
declare
    v_actor constant text := coalesce(p_worker, pgworker.actor());
    v_completed bigint[];
begin
    -- In the order of ids, as in every statement over several jobs: the sort is the outer side of
    -- the loop. The holder's name is an argument: reading it would cost a second look at each
    -- row.
    with input as (
        select *
        from unnest(p_job_ids, p_claim_tokens, p_patches, p_checkpoints)
            as input (job_id, claim_token, patch, checkpoint)
        order by job_id
    ),

    completed as (
        update public.client_provisioning_jobs as job
        set
            status = 'succeeded',
            checkpoint = case
                when input.checkpoint is null then job.checkpoint
                else job.checkpoint || input.checkpoint
            end,
            last_error = null,
            error_kind = null,
            claimed_at = null,
            claimed_by = null,
            lease_expires_at = null,
            finished_at = now(),
            updated_at = now()
        from input
        where
            job.id = input.job_id
            and job.claim_token = input.claim_token
            and coalesce(job.status, '') = 'running'
        returning
            job.id,
            job.client_id,
            job.workflow,
            job.job_type,
            job.claim_token,
            input.patch
    ),

    logged as (
        insert into pgworker.event_log (
            event, actor, client_id, job_id, workflow, claim_token,
            from_status, to_status, from_phase, to_phase
        )
        select
            'succeeded', v_actor, client_id, id, workflow, claim_token,
            'running', 'succeeded', job_type, job_type
        from completed
    ),

    shown as (
        update public.clients as client
        set
            provisioning_status = case
                when completed.workflow = 'provision' then 'ready'
                else client.provisioning_status
            end,
            -- Another workflow that succeeds removes its own error from a client that is ready.
            -- The reason why a client is not ready stays.
            provisioning_error = case
                when completed.workflow = 'provision' or client.provisioning_status = 'ready'
                    then null
                else client.provisioning_error
            end,
            provisioning_completed_at = case
                when completed.workflow = 'provision' then now()
                else client.provisioning_completed_at
            end,
            schema_version = coalesce(completed.patch ->> 'schema_version', client.schema_version),
            project_ref = coalesce(completed.patch ->> 'project_ref', client.project_ref),
            project_url = coalesce(completed.patch ->> 'project_url', client.project_url),
            additional_settings = case
                when completed.patch ? 'provisioning'
                    then pgworker.with_provisioning(
                        client.additional_settings, completed.patch -> 'provisioning'
                    )
                else client.additional_settings
            end,
            updated_at = now()
        from completed
        where client.id = completed.client_id
    )

    select coalesce(array_agg(completed.id), '{}')
    into v_completed
    from completed;

    if cardinality(v_completed) < cardinality(p_job_ids) then
        return query
        select refused
        from
            pgworker.find_refused(p_job_ids, p_claim_tokens, v_completed, 'succeeded')
                as refused;
    end if;
end
$$;
