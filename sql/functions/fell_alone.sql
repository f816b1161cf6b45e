-- fell_alone: whether a worker that fell silent held one job only. Nothing is noted about a worker
-- that isn't registered: what it holds now counts.
create or replace function pgworker.fell_alone(
    p_worker text
)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select
        coalesce(
            (
                select worker.jobs_when_silent
                from pgworker.workers as worker
                where worker.id = p_worker
            ),
            (
                select count(*)
                from public.client_provisioning_jobs as job
                where job.status = 'running' and job.claimed_by = p_worker
            )
        ) = 1;
$$;
