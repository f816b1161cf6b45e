-- advance: running -> running in the next phase, for jobs held by their callers, who keep their
-- claims: a workflow does not queue up again between its phases. One transaction holds the
-- phase's result on the client (p_patches), what goes into the checkpoint (p_checkpoints), the next
-- job_type with its counters at zero, the client's status and the event. Arrays are parallel; a
-- null patch or checkpoint changes nothing. Returns the ids that were refused because the claim
-- token given is not the current one; nothing is written for them.
-- A repeat, after an answer that got lost, finds the job in its next phase and changes nothing.
create or replace function pgworker.advance(
    p_job_ids bigint[],
    p_claim_tokens bigint[],
    p_next_phases text[],
    p_patches jsonb[],
    p_checkpoints jsonb[],
    p_lease interval
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
    v_advanced bigint[];
begin
    -- In the order of ids, as in every statement over several jobs: the sort is the outer side of
    -- the loops. "before" is the row as the statement found it, and holds the phase that ends.
    with input as (
        select *
        from unnest(p_job_ids, p_claim_tokens, p_next_phases, p_patches, p_checkpoints)
            as input (job_id, claim_token, next_phase, patch, checkpoint)
        order by job_id
    ),

    advanced as (
        update public.client_provisioning_jobs as job
        set
            job_type = input.next_phase,
            attempts = 0,
            crashes = 0,
            phase_began_at = now(),
            checkpoint = case
                when input.checkpoint is null then job.checkpoint
                else job.checkpoint || input.checkpoint
            end,
            -- Not `greatest`, as in heartbeat: what made the lease longer was a request of the
            -- phase that has ended, and a rescue need not wait for it any more.
            lease_expires_at = now() + p_lease,
            updated_at = now()
        from input
        inner join public.client_provisioning_jobs as before on input.job_id = before.id
        where
            job.id = input.job_id
            and job.claim_token = input.claim_token
            and coalesce(job.status, '') = 'running'
            and job.job_type <> input.next_phase
        returning
            job.id,
            job.client_id,
            job.workflow,
            job.job_type,
            job.claim_token,
            job.claimed_by,
            before.job_type as from_phase,
            input.patch
    ),

    logged as (
        insert into pgworker.event_log (
            event, actor, client_id, job_id, workflow, claim_token,
            from_status, to_status, from_phase, to_phase
        )
        select
            'advanced', claimed_by, client_id, id, workflow, claim_token,
            'running', 'running', from_phase, job_type
        from advanced
    ),

    shown as (
        update public.clients as client
        set
            provisioning_status = coalesce(phase.client_status, client.provisioning_status),
            schema_version = coalesce(advanced.patch ->> 'schema_version', client.schema_version),
            project_ref = coalesce(advanced.patch ->> 'project_ref', client.project_ref),
            project_url = coalesce(advanced.patch ->> 'project_url', client.project_url),
            additional_settings = case
                when advanced.patch ? 'provisioning'
                    then pgworker.with_provisioning(
                        client.additional_settings, advanced.patch -> 'provisioning'
                    )
                else client.additional_settings
            end,
            updated_at = now()
        from advanced
        left join pgworker.phases as phase
            on advanced.workflow = phase.workflow and advanced.job_type = phase.job_type
        where client.id = advanced.client_id
    )

    select coalesce(array_agg(advanced.id), '{}')
    into v_advanced
    from advanced;

    if cardinality(v_advanced) < cardinality(p_job_ids) then
        return query
        select refused
        from
            pgworker.find_refused(p_job_ids, p_claim_tokens, v_advanced, 'running')
                as refused;
    end if;
end
$$;
