-- enqueue: the id of the client's live job of that workflow, made now if there is none. With a
-- future run_at the job waits until then. Safe to repeat and to race.
-- Raises PW003 when there is no such client, PW004 when there is no such workflow.
create or replace function pgworker.enqueue(
    p_client_id uuid,
    p_workflow text default 'provision',
    p_priority smallint default 0,
    p_run_at timestamptz default now(),
    p_max_attempts integer default 10,
    p_trace_context text default null
)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_job_id bigint;
    v_first_phase text;
begin
    perform pgworker.require_client(p_client_id);

    select phase.job_type
    into v_first_phase
    from pgworker.phases as phase
    where phase.workflow = p_workflow
    order by phase.ordinal
    limit 1;

    if v_first_phase is null then
        raise exception 'there is no workflow % (known: %)', p_workflow, (
            select string_agg(distinct workflow, ', ') from pgworker.phases
        )
            using errcode = 'PW004';
    end if;

    -- Twice at most in practice: the live job may end between the two statements.
    loop
        insert into public.client_provisioning_jobs (
            client_id, workflow, job_type, priority, run_at, max_attempts, trace_context
        )
        values (
            p_client_id,
            p_workflow,
            v_first_phase,
            p_priority,
            p_run_at,
            p_max_attempts,
            coalesce(p_trace_context, nullif(current_setting('pgworker.traceparent', true), ''))
        )
        on conflict (client_id, workflow) where status in ('queued', 'running', 'waiting')
        do nothing
        returning id
        into v_job_id;

        if v_job_id is null then
            select job.id
            into v_job_id
            from public.client_provisioning_jobs as job
            where
                job.client_id = p_client_id
                and job.workflow = p_workflow
                and job.status in ('queued', 'running', 'waiting');
        end if;

        if v_job_id is not null then
            return v_job_id;
        end if;
    end loop;
end
$$;
