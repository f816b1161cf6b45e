-- find_refused: of the jobs that a statement was to write (p_job_ids), those that it didn't write
-- (they are not among p_written) because the claim token given is not the current one. A job that
-- has p_status under that token is not refused: the call repeats an earlier one whose answer got
-- lost. Part of advance and complete, whose planner settings hold here too.
-- A statement of its own, after theirs: its snapshot sees what others have done in the meantime.
create or replace function pgworker.find_refused(
    p_job_ids bigint[],
    p_claim_tokens bigint[],
    p_written bigint[],
    p_status text
)
returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select input.job_id
    from unnest(p_job_ids, p_claim_tokens) as input (job_id, claim_token)
    where
        input.job_id <> all(p_written)
        and not exists (
            select 1
            from public.client_provisioning_jobs as job
            where
                job.id = input.job_id
                and job.claim_token = input.claim_token
                and coalesce(job.status, '') = p_status
        );
end
$$;
