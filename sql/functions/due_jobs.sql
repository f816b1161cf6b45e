-- due_jobs: the ids of the jobs that `claim` takes, locked, by the way in which each is due.
--
-- A job is due in one of three ways, and each way has an index of its own: it is queued; it is
-- waiting and past its run_at (rested); it is running and past its lease (silent: a rescue).
-- Queued jobs come by priority and age; of the waiting ones the earliest hundred are looked at, or
-- p_limit. skip locked: claimers never wait for each other.
--
-- A suspect is a job whose holders fell silent twice in the present phase. It is claimed alone, by
-- a worker that holds nothing else (p_in_hand = 0): if that worker falls silent as well, no other
-- job can be the cause, and no other job suffers. Once a suspect has been due for the length of a
-- lease, workers get no other job until they hold none, so that it isn't passed over.
--
-- Each way is a statement of its own, and one query shows which are needed, mostly the first
-- only: what a statement does before its first row is what a claim of one job costs. Arrays
-- stand between them, because the planner takes an array that it can't see for a short one, and
-- any limit for a tenth of the table: so it goes by the indexes, whatever the table holds
-- (sql/README.md, Plans).
create or replace function pgworker.due_jobs(
    p_worker text,
    p_limit integer,
    p_lease interval,
    p_workflows text[],
    p_max_crashes integer,
    p_in_hand integer,
    out queued bigint[],
    out rested bigint[],
    out silent bigint[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_workflows text[] := p_workflows;
    v_some_are_paused boolean;
    v_some_have_waited boolean;
    v_some_are_silent boolean;
    v_some_are_suspect boolean;
    v_earliest bigint[];
    v_suspect record;
begin
    queued := '{}';
    rested := '{}';
    silent := '{}';

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
        ),
        exists (
            select 1
            from public.client_provisioning_jobs as job
            where job.crashes > 1 and job.status in ('queued', 'waiting')
        )
    into v_some_are_paused, v_some_have_waited, v_some_are_silent, v_some_are_suspect;

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

    if v_some_are_silent then
        perform pgworker.note_silent_workers();
        perform pgworker.fail_poison_jobs(p_worker, p_max_crashes);
    end if;

    if v_some_are_silent or v_some_are_suspect then
        select found.id, found.status, found.due_at
        into v_suspect
        from pgworker.next_suspect(v_workflows) as found;

        if v_suspect.id is not null and p_in_hand = 0 then
            case v_suspect.status
                when 'queued' then queued := array[v_suspect.id];
                when 'waiting' then rested := array[v_suspect.id];
                else silent := array[v_suspect.id];
            end case;

            return;
        end if;

        if v_suspect.due_at <= now() - p_lease then
            return;
        end if;
    end if;

    queued := array(
        select job.id
        from public.client_provisioning_jobs as job
        where
            job.status = 'queued'
            and job.run_at <= now()
            and job.workflow = any(v_workflows)
            and job.crashes < 2
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
                and job.crashes < 2
            order by job.run_at
            limit greatest(p_limit, 100)
        );

        -- coalesce: without it the planner may go by the index of waiting jobs once more, and
        -- look for each of them in the array.
        rested := array(
            select job.id
            from unnest(v_earliest) as earliest (id)
            inner join public.client_provisioning_jobs as job on earliest.id = job.id
            where
                coalesce(job.status, '') = 'waiting'
                and job.run_at <= now()
                and (job.wait_code is null or pgworker.retry_lock(job.id, job.client_id))
            order by job.priority desc, job.created_at, job.id
            limit p_limit
            for update of job skip locked
        );
    end if;

    if v_some_are_silent then
        silent := array(
            select job.id
            from public.client_provisioning_jobs as job
            where
                job.status = 'running'
                and job.lease_expires_at <= now()
                and job.crashes = 0
                and job.workflow = any(v_workflows)
            order by job.lease_expires_at
            limit p_limit
            for update skip locked
        );
    end if;
end
$$;
