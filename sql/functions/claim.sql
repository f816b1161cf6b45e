-- claim: queued, waiting or left behind -> running, for up to p_limit due jobs of the
-- workflows that the caller knows. skip locked: claimers never wait for each other. The
-- token grows with every claim, so whoever held the job before can no longer write to it.
-- Due is one of three things, each with an index of its own: queued; waiting past its
-- run_at; running past its lease (a rescue: the holder fell silent). Queued ones come by
-- priority and age; of the waiting ones the earliest hundred due are looked at, or p_limit.
-- A job whose holders fell silent p_max_crashes times in one phase fails instead.
-- Each kind is a statement of its own, and one look tells which are needed, mostly the first
-- only: what a statement does before its first row is what a claim of one job costs. Arrays
-- between them, because the planner takes one that it can't see for a short one, and any limit
-- for a tenth of the table: so it goes by the indexes, whatever the table holds
-- (sql/README.md, Plans).
create or replace function pgworker.claim(
    p_worker text,
    p_limit integer,
    p_lease interval,
    p_workflows text[] default '{provision}',
    p_max_crashes integer default 5
)
returns setof public.client_provisioning_jobs
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    v_workflows text[] := p_workflows;
    v_some_are_paused boolean;
    v_some_have_waited boolean;
    v_some_are_silent boolean;
    v_earliest bigint[];
    v_queued bigint[];
    v_rested bigint[] := '{}';
    v_silent bigint[] := '{}';
    v_ids bigint[];
begin
    select
        exists (select 1 from pgworker.pauses),
        exists (
            select 1
            from public.client_provisioning_jobs as job
            where job.status = 'waiting' and job.run_at <= now()
        ),
        exists (
            select 1
            from public.client_provisioning_jobs as job
            where job.status = 'running' and job.lease_expires_at <= now()
        )
    into v_some_are_paused, v_some_have_waited, v_some_are_silent;

    if v_some_are_paused then
        v_workflows := array(
            select known.workflow
            from unnest(p_workflows) as known (workflow)
            where
                not exists (
                    select 1
                    from pgworker.pauses as pause
                    where pause.scope in ('all', known.workflow)
                )
        );
    end if;

    v_queued := array(
        select job.id
        from public.client_provisioning_jobs as job
        where
            job.status = 'queued'
            and job.run_at <= now()
            and job.workflow = any(v_workflows)
        order by job.priority desc, job.created_at, job.id
        limit p_limit
        for update skip locked
    );

    if v_some_have_waited then
        v_earliest := array(
            select job.id
            from public.client_provisioning_jobs as job
            where
                job.status = 'waiting'
                and job.run_at <= now()
                and job.workflow = any(v_workflows)
            order by job.run_at
            limit greatest(p_limit, 100)
        );

        -- coalesce: without it the planner may go by the index of waiting jobs once more, and
        -- look for each of them in the array.
        v_rested := array(
            select job.id
            from unnest(v_earliest) as earliest (id)
            inner join public.client_provisioning_jobs as job on earliest.id = job.id
            where
                coalesce(job.status, '') = 'waiting'
                and job.run_at <= now()
            order by job.priority desc, job.created_at, job.id
            limit p_limit
            for update of job skip locked
        );
    end if;

    if v_some_are_silent then
        perform pgworker.fail_poison_jobs(p_worker, p_max_crashes);

        v_silent := array(
            select job.id
            from public.client_provisioning_jobs as job
            where
                job.status = 'running'
                and job.lease_expires_at <= now()
                -- Those beyond are fail_poison_jobs's, even if it had to skip them just now.
                and job.crashes + 1 < p_max_crashes
                and job.workflow = any(v_workflows)
            order by job.lease_expires_at
            limit p_limit
            for update skip locked
        );
    end if;

    v_ids := v_queued || v_rested || v_silent;

    if cardinality(v_ids) = 0 then
        return;
    end if;

    if cardinality(v_ids) > p_limit then
        v_ids := array(
            select job.id
            from unnest(v_ids) as found (id)
            inner join public.client_provisioning_jobs as job on found.id = job.id
            order by job.priority desc, job.created_at, job.id
            limit p_limit
        );
    end if;

    -- By an array alone, without a join: ids that lie together are found in one pass over the index.
    with claimed as (
        update public.client_provisioning_jobs as job
        set
            status = 'running',
            claim_token = job.claim_token + 1,
            crashes = job.crashes + (job.id = any(v_silent))::integer,
            claimed_at = now(),
            claimed_by = p_worker,
            lease_expires_at = now() + p_lease,
            waiting_for = null,
            updated_at = now()
        where job.id = any(v_ids)
        returning
            job.id,
            job.client_id,
            job.workflow,
            job.job_type,
            job.claim_token,
            case
                when job.id = any(v_silent) then 'running'
                when job.id = any(v_rested) then 'waiting'
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

    return query
    select job.*
    from public.client_provisioning_jobs as job
    where job.id = any(v_ids)
    order by job.priority desc, job.created_at, job.id;
end
$$;
