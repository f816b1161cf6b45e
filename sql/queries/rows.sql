-- name: client_status
-- ClientStatusRow: what people see of a client.
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
    client.blocked_code,
    coalesce(phase.may_cost_money, false) as may_cost_money
from pgworker.client_status as client
left join pgworker.phases as phase
    on client.workflow = phase.workflow and client.phase = phase.job_type;

-- name: job_status
-- JobStatusRow: what people see of a job.
select
    job.id,
    job.client_id,
    job.client_name,
    job.workflow,
    job.phase,
    job.phase_number,
    job.phase_count,
    job.status,
    job.priority,
    job.attempts,
    job.max_attempts,
    job.crashes,
    job.error_kind,
    job.last_error,
    job.waiting_for,
    job.next_try_at,
    job.claimed_by,
    job.lease_expires_at,
    job.created_at,
    job.updated_at,
    job.finished_at
from pgworker.job_status as job;
