-- next_suspect: the suspect that has been due for longest, locked; no row when none is due. Part of
-- claim. A suspect is a job whose holders fell silent twice in the present phase; one that is past
-- its lease is about to be counted once more.
create or replace function pgworker.next_suspect(
    p_workflows text[]
)
returns table (id bigint, status text, due_at timestamptz)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    with due as (
        (
            select
                job.id,
                job.run_at as due_at
            from public.client_provisioning_jobs as job
            where
                job.crashes > 1
                and job.status in ('queued', 'waiting')
                and job.run_at <= now()
                and job.workflow = any(p_workflows)
                and (job.wait_code is null or pgworker.retry_lock(job.id, job.client_id))
            order by job.run_at
            limit 10
        )
        union all
        (
            select
                job.id,
                job.lease_expires_at as due_at
            from public.client_provisioning_jobs as job
            where
                job.crashes > 0
                and job.status = 'running'
                and job.lease_expires_at <= now()
                and job.workflow = any(p_workflows)
            order by job.lease_expires_at
            limit 10
        )
    )

    select
        job.id,
        job.status,
        due.due_at
    from due
    inner join public.client_provisioning_jobs as job on due.id = job.id
    order by due.due_at
    limit 1
    for update of job skip locked;
end
$$;
