-- name: statuses
-- How many clients show each status.
select
    provisioning_status as status,
    count(*) as clients
from public.clients
group by provisioning_status;

-- name: stuck
-- Clients whose job is queued or waiting, the one that has been due for longest first. The jobs
-- are chosen first: the view is then asked for these clients only.
select
    client.client_id,
    client.client_name,
    client.status,
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
    client.since
from (
    select
        job.client_id,
        job.run_at
    from public.client_provisioning_jobs as job
    where job.status in ('queued', 'waiting')
    order by job.run_at, job.client_id
    limit $1
) as due
inner join pgworker.client_status as client on due.client_id = client.client_id
order by due.run_at, due.client_id;

-- name: phases
-- Phases in the order of their workflow; null: of any.
select job_type as phase
from pgworker.phases
where $1::text is null or workflow = $1
order by workflow, ordinal;

-- name: failed_group
-- One group; none when nobody is failed by that error any more.
select
    group_id,
    workflow,
    phase,
    error_kind,
    jobs,
    sample_error,
    what_helps
from pgworker.failed_groups
where group_id = $1;

-- name: clients_of_group
-- Clients whose jobs failed by the same error, newest failure first.
select
    job.client_id,
    client.name as client_name,
    job.finished_at as failed_at
from public.client_provisioning_jobs as job
inner join public.clients as client on job.client_id = client.id
where
    job.status = 'failed'
    and pgworker.failure_group(job.workflow, job.job_type, job.error_kind, job.last_error) = $1
order by job.finished_at desc, job.id desc
limit $2;

-- name: remedy
-- Advice for a kind of error, without a command to type.
select pgworker.remedy($1) as what_helps;

-- name: steps
-- What was done outside for a client, newest first.
select
    step,
    target,
    state,
    job_id,
    intended_at,
    ended_at
from pgworker.steps
where client_id = $1
order by id desc
limit $2;
