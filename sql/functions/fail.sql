-- fail: running -> waiting (back-off) or failed, by the worker that holds the claim. Counts an
-- attempt. With p_retry, and attempts left, the job waits a random time up to
-- least(p_backoff_cap, p_backoff_base * 2 ^ failed attempts before this one): full jitter, so
-- that jobs that failed together are not retried together. Otherwise it is failed and needs a
-- person. Returns the new status.
-- Raises PW001 when p_claim_token is not the current one. A repeat, after an answer that got
-- lost, finds the attempt counted under the same token and changes nothing.
create or replace function pgworker.fail(
    p_job_id bigint,
    p_claim_token bigint,
    p_error_kind text,
    p_error text,
    p_retry boolean,
    p_backoff_base interval,
    p_backoff_cap interval
)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
    v_job public.client_provisioning_jobs;
    v_worker text;
    v_again boolean;
    v_error text := p_error;
begin
    select job.*
    into v_job
    from public.client_provisioning_jobs as job
    where
        job.id = p_job_id
        and job.claim_token = p_claim_token
    for update;

    if v_job.status in ('waiting', 'failed') then
        return v_job.status;
    end if;

    perform pgworker.check_claim(p_job_id, p_claim_token);

    select job.*
    into strict v_job
    from public.client_provisioning_jobs as job
    where job.id = p_job_id;

    v_worker := v_job.claimed_by;
    v_again := p_retry and v_job.attempts + 1 < v_job.max_attempts;

    if p_retry and not v_again then
        v_error := format('gave up after %s attempts: %s', v_job.attempts + 1, p_error);
    end if;

    update public.client_provisioning_jobs as job
    set
        status = case when v_again then 'waiting' else 'failed' end,
        attempts = job.attempts + 1,
        error_kind = p_error_kind,
        last_error = v_error,
        -- The exponent is bounded: 2 ^ 30 of anything is past every cap.
        run_at = case
            when v_again
                then now() + random() * least(
                    p_backoff_cap, p_backoff_base * power(2, least(job.attempts, 30))
                )
            else job.run_at
        end,
        waiting_for = case when v_again then 'the next try after an error' end,
        claimed_at = null,
        claimed_by = null,
        lease_expires_at = null,
        finished_at = case when not v_again then now() end,
        updated_at = now()
    where job.id = p_job_id
    returning job.*
    into v_job;

    insert into pgworker.event_log (
        event, actor, client_id, job_id, workflow, claim_token,
        from_status, to_status, from_phase, to_phase, error_kind, error, detail
    )
    values (
        case when v_again then 'backed_off' else 'failed' end,
        v_worker, v_job.client_id, v_job.id, v_job.workflow, v_job.claim_token,
        'running', v_job.status, v_job.job_type, v_job.job_type, p_error_kind, v_error,
        jsonb_build_object('attempts', v_job.attempts, 'run_at', v_job.run_at)
    );

    perform pgworker.show_failure(
        v_job.client_id, v_error, not v_again and v_job.workflow = 'provision'
    );

    return v_job.status;
end
$$;
