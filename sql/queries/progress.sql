-- name: client
-- A client with its newest job, since when that is in its phase, and the newest event.
select
    client.client_id,
    client.client_name,
    client.status,
    client.job_id,
    client.workflow,
    client.phase,
    client.phase_number,
    client.phase_count,
    client.job_status,
    client.attempts,
    client.max_attempts,
    client.error_kind,
    client.last_error,
    client.blocked_because,
    client.next_try_at,
    client.claimed_by,
    client.since,
    client.project_ref,
    client.project_url,
    client.schema_version,
    client.provisioning_started_at,
    client.provisioning_completed_at,
    client.created_at,
    (
        select job.phase_began_at
        from public.client_provisioning_jobs as job
        where job.id = client.job_id
    ) as phase_began_at,
    coalesce(
        (
            select max(event.id)
            from pgworker.event_log as event
            where event.client_id = client.client_id
        ),
        0
    ) as newest_event_id
from pgworker.client_status as client
where client.client_id = $1;

-- name: latency
-- All phases in order, with what they took in the last day; nulls: nobody knows yet.
select
    phase.workflow,
    phase.job_type as phase,
    coalesce(latency.count, 0) as count,
    latency.p50_seconds,
    latency.p95_seconds,
    latency.max_seconds
from pgworker.phases as phase
left join pgworker.phase_latency as latency
    on phase.workflow = latency.workflow and phase.job_type = latency.phase
order by phase.workflow, phase.ordinal;
