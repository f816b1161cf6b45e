-- snooze: running -> waiting until p_delays from now, for jobs held by their callers. A wait is
-- not an attempt. p_reasons says in words what the job waits for. An error (kind and message, or
-- null) is one that needs no action yet: throttled, or a refused credential. p_credentials names
-- that credential: a job that starts to wait while the breaker closes, and so wasn't woken by
-- that, is due at once. Arrays are parallel. Returns the ids that were refused (stale claim
-- token). A repeat, after an answer that got lost, finds the job waiting under the same token,
-- changes nothing and is not refused.
create or replace function pgworker.snooze(
    p_job_ids bigint[],
    p_claim_tokens bigint[],
    p_delays interval[],
    p_reasons text[],
    p_checkpoints jsonb[],
    p_error_kinds text[],
    p_errors text[],
    p_credentials text[]
)
returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set lock_timeout = '1s'
as $$
#variable_conflict use_column
begin
    return query
    with input as (
        select *
        from
            unnest(
                p_job_ids,
                p_claim_tokens,
                p_delays,
                p_reasons,
                p_checkpoints,
                p_error_kinds,
                p_errors,
                p_credentials
            )
            as input (job_id, claim_token, delay, reason, checkpoint, error_kind, error, credential)
    ),

    -- Locked: either close_breaker waits for this statement and then finds the jobs waiting, or
    -- it came first and the breaker isn't found here.
    still_open as (
        select breaker.credential
        from pgworker.breakers as breaker
        where breaker.credential = any(p_credentials)
        order by breaker.credential
        for share
    ),

    held as (
        select
            job.id,
            job.status,
            job.claimed_by,
            input.delay,
            input.reason,
            input.checkpoint,
            input.error_kind,
            input.error,
            input.credential is not null
            and not exists (
                select 1
                from still_open
                where still_open.credential = input.credential
            ) as is_accepted_again
        from public.client_provisioning_jobs as job
        inner join input on job.id = input.job_id and job.claim_token = input.claim_token
        order by job.id
        for update of job
    ),

    snoozed as (
        update public.client_provisioning_jobs as job
        set
            status = 'waiting',
            -- The provider gives many jobs the same time to come back; a tenth of jitter spreads
            -- them.
            run_at = now() + held.delay * case
                when held.is_accepted_again then 0
                when held.error_kind = 'throttled' then 1 + 0.1 * random()
                else 1
            end,
            waiting_for = held.reason,
            checkpoint = job.checkpoint || coalesce(held.checkpoint, '{}'),
            error_kind = coalesce(held.error_kind, job.error_kind),
            last_error = coalesce(held.error, job.last_error),
            claimed_at = null,
            claimed_by = null,
            lease_expires_at = null,
            updated_at = now()
        from held
        where
            job.id = held.id
            and held.status = 'running'
        returning
            job.*, held.claimed_by as actor, held.error_kind as new_error_kind, held.error as new_error
    ),

    logged as (
        insert into pgworker.event_log (
            event, actor, client_id, job_id, workflow, claim_token,
            from_status, to_status, from_phase, to_phase, error_kind, error, detail
        )
        select
            'snoozed', actor, client_id, id, workflow, claim_token,
            'running', 'waiting', job_type, job_type, new_error_kind, new_error,
            jsonb_build_object('run_at', run_at, 'waiting_for', waiting_for)
        from snoozed
    ),

    shown as (
        update public.clients as client
        set
            provisioning_error = snoozed.new_error,
            updated_at = now()
        from snoozed
        where
            client.id = snoozed.client_id
            and snoozed.new_error is not null
    )

    select input.job_id
    from input
    where
        input.job_id not in (
            select held.id
            from held
            where held.status in ('running', 'waiting')
        );
end
$$;
