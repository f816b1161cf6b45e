-- queue_health: one row for dashboards, alerts and autoscalers. Cheap: each part reads the
-- partial index of its status only, so finished jobs cost nothing. Ages are in seconds.
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
    (
        select count(*)
        from pgworker.worker_status as worker
        where worker.alive
    ) as workers_alive,
    exists(select 1 from pgworker.pauses) as paused,
    (
        select count(*)
        from pgworker.breakers as breaker
        where breaker.probe_at > now() - interval '10 minutes'
    ) as breakers_open,
    (
        select count(*)
        from pgworker.rate_limits as bucket
        where
            bucket.used >= pgworker.ceiling_of(bucket)
            and bucket.resets_at > now()
    ) as limits_used_up
from (
    select
        count(*) as jobs,
        count(*) filter (where job.run_at <= now()) as due,
        min(job.run_at) filter (where job.run_at <= now()) as oldest_due_at
    from public.client_provisioning_jobs as job
    where job.status = 'queued'
) as queued
cross join (
    select
        count(*) as jobs,
        count(*) filter (where job.run_at <= now()) as due,
        min(job.run_at) filter (where job.run_at <= now()) as oldest_due_at
    from public.client_provisioning_jobs as job
    where job.status = 'waiting'
) as waiting
cross join (
    select
        count(*) as jobs,
        count(*) filter (where job.lease_expires_at <= now()) as lease_expired
    from public.client_provisioning_jobs as job
    where job.status = 'running'
) as active
cross join (
    select count(*) as jobs
    from public.client_provisioning_jobs as job
    where job.status = 'failed'
) as failed;
