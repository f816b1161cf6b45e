-- New jobs, by whatever way they are inserted: their clients show queued, the audit trail records
-- them, sleeping workers wake. One notification per statement (NOTIFY takes a lock on the whole
-- cluster at commit).
-- security definer: the inserting role needs rights on the jobs table only.
-- A session plans these statements once, for as many rows as its first insert brought; so they
-- are made to go by the indexes, row by row, which is right for one and good for many.
create or replace function pgworker.jobs_inserted()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    v_actor constant text := pgworker.actor();
    v_some_are_queued boolean;
    v_some_are_for_later boolean;
    v_some_supersede boolean;
begin
    select
        bool_or(inserted.status = 'queued'),
        bool_or(inserted.status = 'queued' and inserted.run_at > now()),
        bool_or(
            exists (
                select 1
                from public.client_provisioning_jobs as job
                where
                    job.client_id = inserted.client_id
                    and job.workflow = inserted.workflow
                    and job.status = 'failed'
            )
        )
    into v_some_are_queued, v_some_are_for_later, v_some_supersede
    from inserted;

    if v_some_are_queued is not true then
        return null;
    end if;

    -- A new job takes the place of the failed one: they never stand side by side, so that a later
    -- retry can't collide with it.
    if v_some_supersede then
        with superseded as (
            update public.client_provisioning_jobs as job
            set
                status = 'cancelled',
                updated_at = now()
            from inserted
            where
                job.client_id = inserted.client_id
                and job.workflow = inserted.workflow
                and job.status = 'failed'
                and job.id <> inserted.id
            returning job.*, inserted.id as successor
        )

        insert into pgworker.event_log (
            event, actor, client_id, job_id, workflow, claim_token,
            from_status, to_status, from_phase, to_phase, detail
        )
        select
            'cancelled', v_actor, client_id, id, workflow, claim_token,
            'failed', 'cancelled', job_type, job_type,
            jsonb_build_object('superseded_by', successor)
        from superseded;
    end if;

    -- Queued means due: a job that must not start yet waits.
    if v_some_are_for_later then
        update public.client_provisioning_jobs as job
        set
            status = 'waiting',
            waiting_for = 'its start time'
        from inserted
        where
            job.id = inserted.id
            and inserted.status = 'queued'
            and inserted.run_at > now();
    end if;

    with logged as (
        insert into pgworker.event_log (
            event, actor, client_id, job_id, workflow, claim_token, to_status, to_phase
        )
        select
            'enqueued',
            v_actor,
            inserted.client_id,
            inserted.id,
            inserted.workflow,
            inserted.claim_token,
            case when inserted.run_at > now() then 'waiting' else 'queued' end,
            inserted.job_type
        from inserted
        where inserted.status = 'queued'
    )

    update public.clients as client
    set
        provisioning_status = 'queued',
        provisioning_error = null,
        provisioning_started_at = null,
        provisioning_completed_at = null,
        updated_at = now()
    from inserted
    where
        client.id = inserted.client_id
        and inserted.workflow = 'provision'
        and inserted.status = 'queued'
        -- A client that was inserted just now, with auto_provision, shows it already.
        and (
            client.provisioning_status <> 'queued'
            or client.provisioning_error is not null
            or client.provisioning_started_at is not null
            or client.provisioning_completed_at is not null
        );

    perform pg_notify('pgworker', 'enqueued');

    return null;
end
$$;

drop trigger if exists pgworker_jobs_inserted on public.client_provisioning_jobs;

create trigger pgworker_jobs_inserted
after insert on public.client_provisioning_jobs
referencing new table as inserted
for each statement
execute function pgworker.jobs_inserted();
