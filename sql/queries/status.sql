-- name: client
-- One client, as a phase needs it.
select
    id,
    name,
    provisioning_status as status,
    project_ref,
    project_url,
    schema_version,
    pgworker.utc(created_at) as created_at,
    coalesce(additional_settings, '{}') as settings
from public.clients
where id = $1;

-- name: clients
-- Clients with their newest jobs, newest client first; nulls don't filter or limit.
select client.*  -- noqa: AM04
from include.client_status as client
where $1::uuid is null or client.client_id = $1
order by client.created_at desc, client.client_id
limit $2;

-- name: clients_named
-- Ids of the clients of exactly that name.
select id
from public.clients
where name = $1
order by created_at
limit 3;

-- name: likely_names
-- Names among which the nearest to a typed one are searched; the likeliest first.
select name
from public.clients
order by lower(name) like '%' || lower($1) || '%' desc, created_at desc
limit 1000;

-- name: clients_by_status
-- How many clients show each status.
select
    provisioning_status as status,
    count(*) as clients
from public.clients
group by provisioning_status;

-- name: stuck
-- Clients whose job is queued or waiting, the one that has been due for longest first. The jobs
-- are chosen first, so that the view is evaluated for these clients only.
select client.*  -- noqa: AM04
from (
    select
        job.client_id,
        job.run_at
    from public.client_provisioning_jobs as job
    where job.status in ('queued', 'waiting')
    order by job.run_at, job.client_id
    limit $1
) as due
inner join include.client_status as client on due.client_id = client.client_id
order by due.run_at, due.client_id;

-- name: clients_with_tenant
-- Clients that have a tenant, for work on the whole fleet.
select id
from public.clients
where
    project_ref is not null
    and provisioning_status not in ('deprovisioning', 'deprovisioned')
order by created_at, id;

-- name: jobs
-- Jobs, newest first; nulls don't filter or limit.
select job.*  -- noqa: AM04
from include.job_status as job
where
    ($1::text is null or job.status = $1)
    and ($2::uuid is null or job.client_id = $2)
order by job.id desc
limit $3;

-- name: failed_clients
-- Clients with a failed job of that kind; null: of any.
select distinct
    client_id,
    client_name
from pgworker.failed_jobs
where $1::text is null or error_kind = $1
order by client_name, client_id;

-- name: failed_groups
-- Failed jobs by what is the same error, the largest group first; nulls don't filter or limit.
select
    failed.group_id,
    failed.workflow,
    failed.phase,
    failed.error_kind,
    failed.jobs,
    failed.oldest_failed_at,
    failed.newest_failed_at,
    failed.sample_error,
    failed.sample_client_ids,
    failed.sample_client_names,
    failed.signature,
    failed.what_helps,
    coalesce(phase.may_cost_money, false) as may_cost_money
from pgworker.failed_groups as failed
left join pgworker.phases as phase
    on failed.workflow = phase.workflow and failed.phase = phase.job_type
where $1::text is null or failed.group_id = $1
order by failed.jobs desc, failed.newest_failed_at desc, failed.group_id
limit $2;

-- name: clients_of_group
-- Clients whose jobs failed with the same error, newest failure first.
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

-- name: advice
-- Advice for the client's newest failed job.
select what_helps
from pgworker.failed_jobs
where client_id = $1
order by id desc
limit 1;

-- name: remedy
-- Advice for a kind of error, without a command to type.
select pgworker.remedy($1) as what_helps;

-- name: history
-- The newest events of a client, oldest first.
select
    newest.at,
    newest.event,
    newest.actor,
    newest.from_status,
    newest.to_status,
    newest.from_phase,
    newest.to_phase,
    newest.error_kind,
    newest.error,
    newest.detail
from (
    select *
    from pgworker.events
    where client_id = $1
    order by id desc
    limit $2
) as newest
order by newest.id;

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

-- name: checkpoint
-- The checkpoint of the client's newest job.
select checkpoint
from public.client_provisioning_jobs
where client_id = $1
order by id desc
limit 1;

-- name: phases
-- Phases in the order of their workflow; null: of any.
select job_type as phase
from pgworker.phases
where $1::text is null or workflow = $1
order by workflow, ordinal;

-- name: phase_seconds
-- Seconds in each phase of the newest jobs of these clients: from the first claim in it to its
-- end, waits and failed attempts included; until now for a phase that isn't over.
with job as (
    select distinct on (newest.client_id)
        newest.id,
        newest.client_id,
        newest.finished_at
    from public.client_provisioning_jobs as newest
    where newest.client_id = any($1::uuid[])
    order by newest.client_id, newest.id desc
),

event as (
    select
        logged.job_id,
        logged.event,
        logged.at,
        logged.from_phase,
        logged.to_phase
    from pgworker.event_log as logged
    inner join job on logged.client_id = job.client_id and logged.job_id = job.id
),

began as (
    select
        event.job_id,
        event.to_phase as phase,
        min(event.at) as at
    from event
    where event.event in ('claimed', 'rescued', 'advanced')
    group by event.job_id, event.to_phase
),

ended as (
    select
        event.job_id,
        event.from_phase as phase,
        max(event.at) as at
    from event
    where event.event in ('advanced', 'succeeded')
    group by event.job_id, event.from_phase
)

select
    job.client_id,
    began.phase,
    extract(epoch from coalesce(ended.at, job.finished_at, now()) - began.at)::double precision
        as seconds
from job
inner join began on job.id = began.job_id
left join ended on began.job_id = ended.job_id and began.phase = ended.phase
order by job.client_id, began.at;

-- name: health
select
    queued,
    running,
    waiting,
    failed,
    due_now,
    oldest_due_seconds,
    lease_expired,
    workers_alive,
    paused,
    breakers_open,
    limits_used_up,
    oldest_lease_expired_seconds,
    oldest_unfinished_seconds,
    oldest_failed_seconds,
    creates_unanswered,
    oldest_unanswered_seconds,
    workers_silent,
    oldest_breaker_seconds
from pgworker.queue_health;

-- name: workers
select
    id,
    hostname,
    pid,
    version,
    concurrency,
    state,
    alive,
    jobs,
    started_at,
    last_seen_at
from pgworker.worker_status
order by alive desc, last_seen_at desc;

-- name: pauses
select
    scope,
    paused_at,
    paused_by
from pgworker.pauses
order by paused_at;

-- name: open_breakers
-- Breakers of credentials that are still in use: a replaced credential is no longer probed.
select
    credential,
    reason,
    opened_at,
    probe_at
from pgworker.breakers
where probe_at > now() - interval '10 minutes'
order by opened_at;

-- name: exhausted_limits
-- Buckets of the provider's rate limit that are used up now, and for how long.
select
    endpoint,
    scope,
    extract(epoch from resets_at - now())::double precision as seconds
from pgworker.rate_limits
where
    used >= pgworker.request_limit(rate_limits)
    and resets_at > now()
order by resets_at desc;

-- name: clients_open_to_api_roles
-- Whether the roles of a Supabase Data API could read clients. Closing an adopted table is up to
-- its owner.
select
    exists (
        select 1
        from pg_catalog.pg_roles as role
        where
            role.rolname in ('anon', 'authenticated')
            and has_table_privilege(role.oid, 'public.clients', 'select')
    )
    and not (
        select class.relrowsecurity
        from pg_catalog.pg_class as class
        where class.oid = 'public.clients'::regclass
    );
