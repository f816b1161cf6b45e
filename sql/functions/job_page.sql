-- job_page: ids of jobs, newest first: p_limit of those before p_before_id. Nulls don't filter.
-- p_text is searched in the names of clients, whatever its case, or is a client's id.
create or replace function pgworker.job_page(
    p_status text,
    p_kind text,
    p_phase text,
    p_text text,
    p_client_id uuid,
    p_before_id bigint,
    p_limit integer
)
returns setof bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    v_id uuid := case when p_text ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then p_text end;
begin
    return query
    select job.id
    from public.client_provisioning_jobs as job
    where
        (p_status is null or job.status = p_status)
        and (p_kind is null or job.error_kind = p_kind)
        and (p_phase is null or job.job_type = p_phase)
        and (p_client_id is null or job.client_id = p_client_id)
        and (p_before_id is null or job.id < p_before_id)
        and (
            p_text is null
            or exists (
                select 1
                from public.clients as client
                where
                    client.id = job.client_id
                    and (
                        position(lower(p_text) in lower(client.name)) > 0
                        or client.id = v_id
                    )
            )
        )
    order by job.id desc
    limit p_limit;
end
$$;
