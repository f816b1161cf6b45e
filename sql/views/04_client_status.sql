-- client_status: one row per client, with its newest job and, where it does not move,
-- why not (blocked_because).
create or replace view pgworker.client_status as
select
    client.id as client_id,
    client.name as client_name,
    client.provisioning_status as status,
    job.id as job_id,
    job.workflow,
    job.phase,
    job.phase_number,
    job.phase_count,
    job.status as job_status,
    now() - coalesce(client.provisioning_started_at, job.created_at, client.created_at) as age,
    job.attempts,
    job.max_attempts,
    job.error_kind,
    coalesce(client.provisioning_error, job.last_error) as last_error,
    job.next_try_at,
    job.claimed_by,
    job.updated_at as since,
    case
        when job.id is null and client.provisioning_status = 'not_provisioned'
            then 'no job: nobody has asked for this client to be provisioned'
        when job.status in ('succeeded', 'cancelled') or job.id is null
            then null
        when job.status = 'failed'
            then 'it failed and needs a person: mend the cause, then retry'
        when job.lease_expired
            then format('worker %s fell silent; the next claim takes the job over', job.claimed_by)
        when job.status = 'running'
            then null
        when
            exists (
                select 1
                from pgworker.pauses as pause
                where pause.scope in ('all', job.workflow)
            )
            then 'paused by a person: pgworker resume'
        when
            not exists (
                select 1
                from pgworker.worker_status as worker
                where worker.alive
            )
            then 'no worker is alive: start pgworker run'
        when job.status = 'waiting'
            then job.waiting_for
        else 'waiting for a free worker'
    end as blocked_because,
    client.project_ref,
    client.project_url,
    client.schema_version,
    client.provisioning_started_at,
    client.provisioning_completed_at,
    client.created_at
from public.clients as client
left join lateral (
    select newest.*
    from pgworker.job_status as newest
    where newest.client_id = client.id
    order by newest.id desc
    limit 1
) as job on true;
