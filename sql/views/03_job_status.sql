-- job_status: every job, live and finished.
create or replace view pgworker.job_status as
select
    job.id,
    job.client_id,
    client.name as client_name,
    job.workflow,
    job.job_type as phase,
    phase.ordinal as phase_number,
    phases.total as phase_count,
    job.status,
    job.priority,
    job.attempts,
    job.max_attempts,
    job.crashes,
    job.error_kind,
    job.last_error,
    job.waiting_for,
    case when job.status in ('queued', 'waiting') then job.run_at end as next_try_at,
    job.claimed_by,
    job.claimed_at,
    job.lease_expires_at,
    job.status = 'running' and job.lease_expires_at <= now() as lease_expired,
    job.checkpoint,
    job.created_at,
    job.updated_at,
    job.finished_at,
    job.wait_code
from public.client_provisioning_jobs as job
inner join public.clients as client on job.client_id = client.id
left join pgworker.phases as phase
    on job.workflow = phase.workflow and job.job_type = phase.job_type
left join (
    select
        known.workflow,
        count(*) as total
    from pgworker.phases as known
    group by known.workflow
) as phases on job.workflow = phases.workflow;
