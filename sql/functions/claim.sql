-- claim: queued, waiting or silent -> running, for up to p_limit due jobs of the workflows that the
-- caller knows (`due_jobs` says which, `take_jobs` what happens to them). p_in_hand is how many
-- jobs the caller holds already: suspects are claimed alone. A job whose holders fell silent
-- p_max_crashes times in one phase fails instead (`fail_poison_jobs`). Raises what the update of
-- one client's row raises; then `claim_each` serves the others.
create or replace function pgworker.claim(
    p_worker text,
    p_limit integer,
    p_lease interval,
    p_workflows text[] default '{provision}',
    p_max_crashes integer default 5,
    p_in_hand integer default 0
)
returns setof public.client_provisioning_jobs
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set lock_timeout = '200ms'
as $$
#variable_conflict use_column
declare
    v_due record;
    v_ids bigint[];
begin
    v_due := pgworker.due_jobs(
        p_worker, p_limit, p_lease, p_workflows, p_max_crashes, p_in_hand
    );
    v_ids := v_due.queued || v_due.rested || v_due.silent;

    if cardinality(v_ids) = 0 then
        return;
    end if;

    if cardinality(v_ids) > p_limit then
        v_ids := array(
            select job.id
            from unnest(v_ids) as found (id)
            inner join public.client_provisioning_jobs as job on found.id = job.id
            order by job.priority desc, job.created_at, job.id
            limit p_limit
        );
    end if;

    perform pgworker.take_jobs(p_worker, p_lease, v_ids, v_due.rested, v_due.silent);

    return query
    select job.*
    from public.client_provisioning_jobs as job
    where job.id = any(v_ids)
    order by job.priority desc, job.created_at, job.id;
end
$$;
