-- client_status: one row per client, with its newest job and, where it does not move, why not:
-- blocked_code for programs, blocked_because as a sentence for people.
--
--     not_requested   it has no job: provisioning was never requested
--     failed          its job failed and needs a person
--     lease_expired   its worker stopped sending heartbeats; the next claim takes the job over
--     paused          pgworker pause holds its workflow, or everything
--     breaker_open    the provider refuses our credential, and the job waits for that to change
--     no_worker       its job is queued or waiting, and no worker is alive
--     client_locked   another session has locked the client's row
--     waiting         its job waits until next_try_at; the sentence is the job's waiting_for
--     no_free_worker  its job is due, and no worker has claimed it yet
--     null            nothing blocks it: a worker is on it, or it has ended
--
-- The first code that applies is shown: a pause before everything else that holds up a live job,
-- because nothing else helps as long as it lasts.
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
    now() - coalesce(
        pgworker.utc(client.provisioning_started_at),
        job.created_at,
        pgworker.utc(client.created_at)
    ) as age,
    job.attempts,
    job.max_attempts,
    job.error_kind,
    coalesce(client.provisioning_error, job.last_error) as last_error,
    job.next_try_at,
    job.claimed_by,
    job.updated_at as since,
    case blocked.code
        when 'not_requested' then 'no job: provisioning was never requested'
        when 'failed' then 'it failed and needs a person: fix the cause, then retry'
        when 'lease_expired'
            then format(
                'worker %s stopped sending heartbeats; the next claim takes the job over',
                job.claimed_by
            )
        when 'paused'
            then format(
                'paused by %s: pgworker resume%s',
                pause.paused_by,
                case when pause.scope <> 'all' then ' ' || pause.scope end
            )
        when 'breaker_open'
            then format(
                'the provider refuses the credential %s: replace it; a probe tries it every 30 s',
                breaker.credential
            )
        when 'no_worker' then 'no worker is alive: start pgworker run'
        when 'client_locked' then job.waiting_for
        when 'waiting' then job.waiting_for
        when 'no_free_worker' then 'waiting for a free worker'
    end as blocked_because,
    client.project_ref,
    client.project_url,
    client.schema_version,
    pgworker.utc(client.provisioning_started_at) as provisioning_started_at,
    pgworker.utc(client.provisioning_completed_at) as provisioning_completed_at,
    pgworker.utc(client.created_at) as created_at,
    blocked.code as blocked_code
from public.clients as client
left join lateral (
    select newest.*
    from pgworker.job_status as newest
    where newest.client_id = client.id
    order by newest.id desc
    limit 1
) as job on true
left join lateral (
    select
        held.scope,
        held.paused_by
    from pgworker.pauses as held
    where held.scope in ('all', job.workflow)
    -- The one that must be taken back for anything to go on comes first.
    order by held.scope <> 'all'
    limit 1
) as pause on job.status in ('queued', 'waiting', 'running')
left join lateral (
    select opened.credential
    from pgworker.breakers as opened
    order by opened.opened_at
    limit 1
) as breaker on job.status = 'waiting' and job.error_kind = 'auth'
cross join
    lateral (
        select
            case
                when job.id is null and client.provisioning_status = 'not_provisioned'
                    then 'not_requested'
                when job.id is null or job.status in ('succeeded', 'cancelled') then null
                when job.status = 'failed' then 'failed'
                when job.status = 'running' and not job.lease_expired then null
                when pause.scope is not null then 'paused'
                when job.lease_expired then 'lease_expired'
                when breaker.credential is not null then 'breaker_open'
                when
                    not exists (
                        select 1
                        from pgworker.worker_status as worker
                        where worker.alive
                    )
                    then 'no_worker'
                when job.wait_code is not null then job.wait_code
                when job.status = 'waiting' then 'waiting'
                else 'no_free_worker'
            end as code
    ) as blocked;
