-- worker_status: every worker seen in the last day. alive: seen within its lease, and not signed
-- off.
create or replace view pgworker.worker_status as
select
    worker.id,
    worker.hostname,
    worker.pid,
    worker.version,
    worker.concurrency,
    worker.state,
    worker.state <> 'stopped' and worker.last_seen_at > now() - worker.lease as alive,
    coalesce(held.jobs, 0) as jobs,
    worker.started_at,
    worker.last_seen_at
from pgworker.workers as worker
left join (
    select
        job.claimed_by,
        count(*) as jobs
    from public.client_provisioning_jobs as job
    where job.status = 'running'
    group by job.claimed_by
) as held on worker.id = held.claimed_by;
