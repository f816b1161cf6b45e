-- begin_step: records what the holder of a job is about to do outside, committed before it does
-- it; returns the step's id. Earlier tries of the same step without an outcome become repeated:
-- the caller has looked them up and found nothing. p_hold makes the lease last at least that long
-- from now, for a request that must not outlive it. p_done are earlier steps of the caller that
-- have happened, recorded in the same round trip. Without a job it is a person's step.
-- Raises PW001 when p_claim_token is not the current one: the step must not be taken.
create or replace function pgworker.begin_step(
    p_client_id uuid,
    p_job_id bigint,
    p_claim_token bigint,
    p_step text,
    p_target text,
    p_hold interval default null,
    p_done bigint[] default '{}'
)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id bigint;
begin
    perform pgworker.end_step(p_client_id, p_job_id, p_claim_token, p_done, 'done');

    update pgworker.steps as step
    set
        state = 'repeated',
        ended_at = now()
    where
        step.client_id = p_client_id
        and step.step = p_step
        and step.target = p_target
        and step.state in ('intended', 'unknown');

    if p_hold is not null then
        update public.client_provisioning_jobs as job
        set lease_expires_at = greatest(job.lease_expires_at, now() + p_hold)
        where job.id = p_job_id;
    end if;

    insert into pgworker.steps (client_id, job_id, claim_token, step, target)
    values (p_client_id, p_job_id, p_claim_token, p_step, p_target)
    returning id
    into v_id;

    return v_id;
end
$$;
