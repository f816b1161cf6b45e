-- queue_health: one row for dashboards, alerts and autoscalers. Cheap: each part reads the
-- partial index of its status only, so that finished jobs cost nothing. Ages are in seconds, of
-- the oldest of each kind, and 0 when there is none: alerts compare them with what is normal.
create or replace view pgworker.queue_health as
select
    queued.jobs as queued,
    active.jobs as running,
    waiting.jobs as waiting,
    failed.jobs as failed,
    queued.due + waiting.due as due_now,
    coalesce(
        extract(epoch from now() - least(queued.oldest_due_at, waiting.oldest_due_at)), 0
    )::double precision as oldest_due_seconds,
    now() - least(queued.oldest_due_at, waiting.oldest_due_at) as oldest_due_age,
    active.lease_expired,
    workers.alive as workers_alive,
    exists(select 1 from pgworker.pauses) as paused,
    breakers.open as breakers_open,
    (
        select count(*)
        from pgworker.rate_limits as bucket
        where
            bucket.used >= pgworker.request_limit(bucket)
            and bucket.resets_at > now()
    ) as limits_used_up,
    coalesce(
        extract(epoch from now() - active.oldest_lease_ended_at), 0
    )::double precision as oldest_lease_expired_seconds,
    coalesce(
        extract(
            epoch from now() - least(
                queued.oldest_created_at, active.oldest_created_at, waiting.oldest_created_at
            )
        ),
        0
    )::double precision as oldest_unfinished_seconds,
    coalesce(
        extract(epoch from now() - failed.oldest_failed_at), 0
    )::double precision as oldest_failed_seconds,
    unanswered.creates as creates_unanswered,
    coalesce(
        extract(epoch from now() - unanswered.oldest_sent_at), 0
    )::double precision as oldest_unanswered_seconds,
    workers.silent as workers_silent,
    coalesce(
        extract(epoch from now() - breakers.oldest_opened_at), 0
    )::double precision as oldest_breaker_seconds
from (
    select
        count(*) as jobs,
        count(*) filter (where job.run_at <= now()) as due,
        min(job.run_at) filter (where job.run_at <= now()) as oldest_due_at,
        min(job.created_at) as oldest_created_at
    from public.client_provisioning_jobs as job
    where job.status = 'queued'
) as queued
cross join (
    select
        count(*) as jobs,
        count(*) filter (where job.run_at <= now()) as due,
        min(job.run_at) filter (where job.run_at <= now()) as oldest_due_at,
        min(job.created_at) as oldest_created_at
    from public.client_provisioning_jobs as job
    where job.status = 'waiting'
) as waiting
cross join (
    select
        count(*) as jobs,
        count(*) filter (where job.lease_expires_at <= now()) as lease_expired,
        min(job.lease_expires_at) filter (
            where job.lease_expires_at <= now()
        ) as oldest_lease_ended_at,
        min(job.created_at) as oldest_created_at
    from public.client_provisioning_jobs as job
    where job.status = 'running'
) as active
cross join (
    select
        count(*) as jobs,
        min(job.finished_at) as oldest_failed_at
    from public.client_provisioning_jobs as job
    where job.status = 'failed'
) as failed
cross join (
    select
        count(*) as creates,
        min(step.intended_at) as oldest_sent_at
    from pgworker.steps as step
    inner join pgworker.intents as intent
        on step.client_id = intent.client_id and intent.kind = 'tenant' and intent.ref is null
    where step.step = 'create_project' and step.state in ('intended', 'unknown')
) as unanswered
cross join (
    select
        count(*) filter (where worker.alive) as alive,
        count(*) filter (where not worker.alive and worker.state <> 'stopped') as silent
    from pgworker.worker_status as worker
) as workers
cross join (
    -- Credentials that are still in use: a replaced credential is no longer probed.
    select
        count(*) as open,
        min(breaker.opened_at) as oldest_opened_at
    from pgworker.breakers as breaker
    where breaker.probe_at > now() - interval '10 minutes'
) as breakers;
