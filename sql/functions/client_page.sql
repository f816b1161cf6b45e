-- client_page: ids of clients, newest first: p_limit of those after (p_before_at, p_before_id),
-- the place of the last client on the page before. Nulls don't filter. p_kind and p_phase are
-- those of the client's unfinished or failed job. p_text is searched in names, whatever its case,
-- or is an id or a project's ref.
-- Planned for the filters given (plan_cache_mode): a plan for all of them is a bad one for each.
create or replace function pgworker.client_page(
    p_status text,
    p_kind text,
    p_phase text,
    p_text text,
    p_before_at timestamptz,
    p_before_id uuid,
    p_limit integer
)
returns setof uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set plan_cache_mode = force_custom_plan
as $$
declare
    v_id uuid := case when p_text ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then p_text end;
begin
    return query
    select client.id
    from public.clients as client
    where
        (p_status is null or client.provisioning_status = p_status)
        and (
            p_text is null
            or position(lower(p_text) in lower(client.name)) > 0
            or client.id = v_id
            or client.project_ref = p_text
        )
        and (
            p_before_id is null
            or (coalesce(client.created_at, '-infinity'), client.id)
            < (coalesce(p_before_at, '-infinity'), p_before_id)
        )
        and (
            (p_kind is null and p_phase is null)
            -- By the partial indexes of unfinished and of failed jobs, one each.
            or client.id = any(array(
                select job.client_id
                from public.client_provisioning_jobs as job
                where
                    job.status in ('queued', 'running', 'waiting')
                    and (p_kind is null or job.error_kind = p_kind)
                    and (p_phase is null or job.job_type = p_phase)
                union
                select job.client_id
                from public.client_provisioning_jobs as job
                where
                    job.status = 'failed'
                    and (p_kind is null or job.error_kind = p_kind)
                    and (p_phase is null or job.job_type = p_phase)
            ))
        )
    order by coalesce(client.created_at, '-infinity') desc, client.id desc
    limit p_limit;
end
$$;
