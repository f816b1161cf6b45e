-- end_step: records how steps of the holder of a job ended: done, refused or unknown. A step that
-- has ended already stays as it is. Without a job they are a person's.
-- Raises PW001 when p_claim_token is not the current one: the present holder looks up what
-- happened.
create or replace function pgworker.end_step(
    p_client_id uuid,
    p_job_id bigint,
    p_claim_token bigint,
    p_step_ids bigint[],
    p_state text
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_job_id is not null then
        perform pgworker.check_claim(p_job_id, p_claim_token);
    end if;

    update pgworker.steps as step
    set
        state = p_state,
        ended_at = now()
    where
        step.id = any(p_step_ids)
        and step.client_id = p_client_id
        and step.state in ('intended', 'unknown');
end
$$;
