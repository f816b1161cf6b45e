-- note_silent_workers: notes how many jobs a worker held when the first of their leases ran out;
-- part of claim. Its jobs are rescued one after the other, by several workers: without the note the
-- last of them would look as if it had been alone. The worker's next heartbeat removes it.
create or replace function pgworker.note_silent_workers()
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    update pgworker.workers as worker
    set jobs_when_silent = held.jobs
    from (
        select
            job.claimed_by,
            count(*) as jobs
        from public.client_provisioning_jobs as job
        where job.status = 'running'
        group by job.claimed_by
        having min(job.lease_expires_at) <= now()
    ) as held
    where
        worker.id = held.claimed_by
        and worker.jobs_when_silent is null;
$$;
