-- refuse_claim: a due job that can't be claimed, because the database refuses to change its
-- client's row, fails with the server's message; where the error may pass it backs off and counts
-- an attempt. The job is claimed without its client for the length of this transaction, so that
-- `fail` decides.
create or replace function pgworker.refuse_claim(
    p_worker text,
    p_job_id bigint,
    p_sqlstate text,
    p_message text
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    -- Connection, conflict, resources, a state that changes, an operator, the server's system
    -- (PostgreSQL's manual, appendix A).
    v_may_pass constant boolean := left(p_sqlstate, 2) in ('08', '40', '53', '55', '57', '58', 'XX');
    v_token bigint;
begin
    update public.client_provisioning_jobs as job
    set
        status = 'running',
        claim_token = job.claim_token + 1,
        claimed_at = now(),
        claimed_by = p_worker,
        lease_expires_at = now(),
        waiting_for = null,
        wait_code = null
    where job.id = p_job_id
    returning job.claim_token
    into v_token;

    perform pgworker.fail(
        p_job_id,
        v_token,
        case when v_may_pass then 'transient' else 'permanent' end,
        format('its row in clients can''t be changed: %s [%s]', p_message, p_sqlstate),
        v_may_pass,
        -- The defaults of PGWORKER_BACKOFF_SECONDS and its cap: no phase of the job has run.
        interval '2 seconds',
        interval '5 minutes'
    );
end
$$;
