-- name: overdue
-- What is older than it should be: a row for each kind, with the count, the oldest one's age in
-- seconds, and a description of that one. $1: how long a phase may take; $2: how long a due job
-- may stay unclaimed; $3: how long a create may go without an outcome.
with live as (
    select
        job.*,
        format('%s (%s)', client.name, client.id) as client
    from public.client_provisioning_jobs as job
    inner join public.clients as client on job.client_id = client.id
    where job.status in ('queued', 'running', 'waiting')
),

overdue as (
    -- From the first claim in the phase since a person last queued the job: a job that was
    -- enqueued for later hasn't begun.
    select
        'phase' as kind,
        now() - worked.since as age,
        format('%s in %s', live.client, live.job_type) as subject
    from live
    cross join
        lateral (
            select min(event.at) as since
            from pgworker.event_log as event
            where
                event.client_id = live.client_id
                and event.job_id = live.id
                and event.at >= live.phase_began_at
                and event.event in ('claimed', 'rescued', 'advanced')
        ) as worked
    where worked.since < now() - $1::interval

    union all

    select
        'due' as kind,
        now() - live.run_at as age,
        live.client as subject
    from live
    where
        live.status in ('queued', 'waiting')
        and live.run_at < now() - $2::interval
        and not exists (
            select 1
            from pgworker.pauses as pause
            where pause.scope in ('all', live.workflow)
        )

    union all

    select
        'lease_expired' as kind,
        now() - live.lease_expires_at as age,
        format('%s, held by %s', live.client, live.claimed_by) as subject
    from live
    where live.status = 'running' and live.lease_expires_at <= now()

    union all

    -- The client shows a phase, and there is no job that could be in it.
    select
        'abandoned' as kind,
        now() - coalesce(pgworker.utc(client.updated_at), pgworker.utc(client.created_at)) as age,
        format('%s (%s)', client.name, client.id) as subject
    from public.clients as client
    where
        client.provisioning_status in (
            'queued', 'creating_project', 'waiting_for_project', 'schema_syncing', 'smoke_checking'
        )
        and client.id not in (select live.client_id from live)

    union all

    select
        'unconfirmed' as kind,
        now() - max(step.intended_at) as age,
        format('%s (%s)', client.name, client.id) as subject
    from pgworker.steps as step
    inner join public.clients as client on step.client_id = client.id
    inner join pgworker.intents as intent
        on step.client_id = intent.client_id and intent.kind = 'tenant' and intent.ref is null
    where
        step.step = 'create_project'
        and step.state in ('intended', 'unknown')
        and client.id not in (select live.client_id from live)
    group by client.id, client.name
    having max(step.intended_at) < now() - $3::interval

    union all

    select
        'worker_lost' as kind,
        now() - worker.last_seen_at as age,
        worker.id as subject
    from pgworker.worker_status as worker
    where not worker.alive and worker.state <> 'stopped'

    union all

    select
        'failed' as kind,
        now() - failed.finished_at as age,
        format('%s (%s)', client.name, client.id) as subject
    from public.client_provisioning_jobs as failed
    inner join public.clients as client on failed.client_id = client.id
    where failed.status = 'failed'
)

select
    overdue.kind,
    count(*) as number,
    extract(epoch from max(overdue.age))::double precision as oldest_seconds,
    (array_agg(overdue.subject order by overdue.age desc nulls last))[1] as oldest
from overdue
group by overdue.kind
order by overdue.kind;
