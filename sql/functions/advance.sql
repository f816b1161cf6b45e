-- advance: running -> running in the next phase, for jobs held by their callers, who keep
-- their claims: a workflow does not queue up again between its phases. In one
-- transaction: the phase's result on the client (p_patches), what the workflow learnt,
-- the next job_type with its counters at zero, the client's status and the event.
-- Arrays are parallel; a patch or learnt of null changes nothing. Returns the ids that were
-- refused, because the claim token given is not the current one; nothing of theirs is written.
-- A repeat, after an answer that got lost, finds the job in its next phase and changes nothing.
create or replace function pgworker.advance(
    p_job_ids bigint[],
    p_claim_tokens bigint[],
    p_next_phases text[],
    p_patches jsonb[],
    p_learnt jsonb[],
    p_lease interval
)
returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    return query
    with input as (
        select *
        from unnest(p_job_ids, p_claim_tokens, p_next_phases, p_patches, p_learnt)
            as input (job_id, claim_token, next_phase, patch, learnt)
    ),

    held as (
        select job.id, job.status, job.job_type, input.next_phase, input.patch, input.learnt
        from public.client_provisioning_jobs as job
        inner join input on job.id = input.job_id and job.claim_token = input.claim_token
        order by job.id
        for update of job
    ),

    advanced as (
        update public.client_provisioning_jobs as job
        set
            job_type = held.next_phase,
            attempts = 0,
            crashes = 0,
            phase_began_at = now(),
            checkpoint = job.checkpoint || coalesce(held.learnt, '{}'),
            lease_expires_at = now() + p_lease,
            updated_at = now()
        from held
        where
            job.id = held.id
            and held.status = 'running'
            and held.job_type <> held.next_phase
        returning job.*, held.job_type as from_phase, held.patch
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

    select input.job_id
    from input
    where
        input.job_id not in (
            select held.id
            from held
            where held.status = 'running'
        );
end
$$;
