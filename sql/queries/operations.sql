-- name: jobs
-- Jobs, newest first; nulls don't filter or limit.
select
    id,
    client_id,
    client_name,
    workflow,
    phase,
    phase_number,
    phase_count,
    status,
    priority,
    attempts,
    max_attempts,
    crashes,
    error_kind,
    last_error,
    waiting_for,
    next_try_at,
    claimed_by,
    lease_expires_at,
    created_at,
    updated_at,
    finished_at
from pgworker.job_status
where
    ($1::text is null or status = $1)
    and ($2::uuid is null or client_id = $2)
order by id desc
limit $3;

-- name: failed_clients
-- Clients with a failed job of that kind; null: of any.
select distinct
    client_id,
    client_name
from pgworker.failed_jobs
where $1::text is null or error_kind = $1
order by client_name, client_id;

-- name: clients
-- Clients with their newest jobs, newest first; nulls don't filter or limit.
select
    client_id,
    client_name,
    status,
    job_id,
    workflow,
    phase,
    phase_number,
    phase_count,
    job_status,
    attempts,
    max_attempts,
    error_kind,
    last_error,
    blocked_code,
    blocked_because,
    next_try_at,
    claimed_by,
    since,
    project_ref,
    project_url,
    schema_version,
    provisioning_started_at,
    provisioning_completed_at,
    created_at
from pgworker.client_status
where
    ($1::text is null or status = $1)
    and ($2::uuid is null or client_id = $2)
order by created_at desc, client_id
limit $3;

-- name: client
-- One client, as a phase needs it.
select
    id,
    name,
    provisioning_status as status,
    project_ref,
    project_url,
    schema_version,
    created_at,
    coalesce(additional_settings, '{}') as settings
from public.clients
where id = $1;

-- name: clients_named
-- Ids of the clients of exactly that name.
select id
from public.clients
where name = $1
order by created_at
limit 3;

-- name: some_names
-- Names to search for the ones nearest to what was typed; the likeliest first.
select name
from public.clients
order by lower(name) like '%' || lower($1) || '%' desc, created_at desc
limit 1000;

-- name: add_client
insert into public.clients (name, auto_provision, additional_settings)
values ($1, true, $2)
returning id;

-- name: order_client
-- The client's id, and whether it is new. Called in a select list, which is evaluated after its
-- `from`: of two functions in one `from` either may come first.
select
    (added.result).client_id as client_id,
    (added.result).is_new as is_new
from (
    select pgworker.add_client($1, $2, $3, $4, $5, $6, $7) as result
    from pgworker.act_for($8)
) as added;

-- name: tenants
-- Clients that have a tenant, for work on the whole fleet.
select id
from public.clients
where
    project_ref is not null
    and provisioning_status not in ('deprovisioning', 'deprovisioned')
order by created_at, id;

-- name: set_schema_version
update public.clients
set
    schema_version = $2,
    updated_at = now()
where id = $1;

-- name: retry
select pgworker.retry($1)
from pgworker.act_for($2);

-- name: cancel
select pgworker.cancel($1)
from pgworker.act_for($2);

-- name: retry_group
select pgworker.retry_group($1)
from pgworker.act_for($2);

-- name: pause
select pgworker.pause($1)
from pgworker.act_for($2);

-- name: resume
select pgworker.resume($1)
from pgworker.act_for($2);

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

-- name: checkpoint
-- What the client's newest job learnt.
select checkpoint
from public.client_provisioning_jobs
where client_id = $1
order by id desc
limit 1;

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

-- name: open_breakers
-- Those that somebody still tries: nobody asks for a credential that was replaced.
select
    credential,
    reason,
    opened_at,
    probe_at
from pgworker.breakers
where probe_at > now() - interval '10 minutes'
order by opened_at;

-- name: used_up_limits
-- Buckets of the provider's rate limit that are empty now, and for how long.
select
    endpoint,
    scope,
    refused,
    extract(epoch from resets_at - now())::double precision as seconds
from pgworker.rate_limits
where
    used >= pgworker.ceiling_of(rate_limits)
    and resets_at > now()
order by resets_at desc;

-- name: clients_open_to_api_roles
-- Whether the roles of a Supabase Data API could read clients: it is then on the adopted
-- table's owner to close it.
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

-- name: phase_seconds
-- Seconds in each phase of the newest jobs of these clients: from the first claim in it to
-- its end, waits and failed attempts included; until now for one that isn't over.
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

-- name: failed_groups
select
    group_id,
    workflow,
    phase,
    error_kind,
    jobs,
    oldest_failed_at,
    newest_failed_at,
    sample_error,
    sample_client_ids,
    sample_client_names,
    signature,
    what_helps
from pgworker.failed_groups
order by jobs desc, newest_failed_at desc, group_id
limit $1;

-- name: what_helps
-- Advice for the client's newest failed job.
select what_helps
from pgworker.failed_jobs
where client_id = $1
order by id desc
limit 1;

-- name: workflows
select distinct workflow
from pgworker.phases
order by workflow;

-- name: pauses
select
    scope,
    paused_at,
    paused_by
from pgworker.pauses
order by paused_at;
