-- name: claim
-- Rows of client_provisioning_jobs, claimed by the caller.
select
    id,
    client_id,
    workflow,
    job_type,
    attempts,
    max_attempts,
    claim_token,
    checkpoint,
    trace_context,
    created_at,
    now() - phase_began_at as in_phase,
    crashes
from pgworker.claim(
    p_worker => $1, p_limit => $2, p_lease => $3, p_workflows => $4, p_in_hand => $5
);

-- name: claim_each
-- As `claim`, job by job.
select
    id,
    client_id,
    workflow,
    job_type,
    attempts,
    max_attempts,
    claim_token,
    checkpoint,
    trace_context,
    created_at,
    now() - phase_began_at as in_phase,
    crashes
from pgworker.claim_each($1, $2, $3, $4, $5);

-- name: heartbeat
-- The jobs whose leases were not renewed, and whether the worker has lost them.
select
    job_id,
    is_lost
from pgworker.heartbeat($1, $2, $3, $4);

-- name: advance
-- The ids that were refused: their callers no longer hold them.
select refused from pgworker.advance($1, $2, $3, $4, $5, $6) as refused;

-- name: complete
-- The ids that were refused: their callers no longer hold them.
select refused from pgworker.complete($1, $2, $3, $4, $5) as refused;

-- name: snooze
-- The ids that were refused: their callers no longer hold them.
select refused from pgworker.snooze($1, $2, $3, $4, $5, $6, $7, $8) as refused;

-- name: fail
-- The new status: waiting or failed.
select pgworker.fail($1, $2, $3, $4, $5, $6, $7);

-- name: release
-- The ids that were refused: their callers no longer hold them.
select refused from pgworker.release($1, $2) as refused;

-- name: seconds_until_due
-- Seconds until a job falls due because a wait ends or a lease runs out. Null when none will;
-- zero or less when one is due already. No min(): where the planner expects few running jobs it
-- may read them all for it.
select
    extract(epoch from least(
        (
            select run_at
            from public.client_provisioning_jobs
            where status = 'waiting'
            order by run_at
            limit 1
        ),
        (
            select lease_expires_at
            from public.client_provisioning_jobs
            where status = 'running'
            order by lease_expires_at
            limit 1
        ),
        -- The first queued job stands for all of them: queued means due.
        (
            select run_at
            from public.client_provisioning_jobs
            where status = 'queued'
            order by priority desc, created_at, id
            limit 1
        )
    ) - now())::double precision;

-- name: outstanding
-- Jobs queued, running or waiting, for workers that leave when there is nothing left; and how
-- many need a person. A count for each status, because each has an index without the finished
-- jobs.
select
    (
        select count(*)
        from public.client_provisioning_jobs
        where status = 'queued'
    ) + (
        select count(*)
        from public.client_provisioning_jobs
        where status = 'running'
    ) + (
        select count(*)
        from public.client_provisioning_jobs
        where status = 'waiting'
    ) as live,
    (
        select count(*)
        from public.client_provisioning_jobs
        where status = 'failed'
    ) as failed;
