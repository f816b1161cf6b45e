-- confirm_steps: a look-up outside has found the targets: steps at them that had no outcome are
-- done.
-- Raises PW001 when p_claim_token is not the current one.
create or replace function pgworker.confirm_steps(
    p_client_id uuid,
    p_job_id bigint,
    p_claim_token bigint,
    p_step text,
    p_targets text[]
)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    select pgworker.end_step(
        p_client_id,
        p_job_id,
        p_claim_token,
        array(
            select step.id
            from pgworker.steps as step
            where
                step.client_id = p_client_id
                and step.step = p_step
                and step.target = any(p_targets)
                and step.state in ('intended', 'unknown')
        ),
        'done'
    );
$$;
