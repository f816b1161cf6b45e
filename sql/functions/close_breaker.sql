-- close_breaker: the provider accepts the credential again. The jobs that wait for it are due at
-- once. Returns whether the breaker was open.
create or replace function pgworker.close_breaker(
    p_credential text
)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from pgworker.breakers
    where credential = p_credential;

    if not found then
        return false;
    end if;

    update public.client_provisioning_jobs
    set
        run_at = now(),
        updated_at = now()
    where
        id = any(array(
            select job.id
            from public.client_provisioning_jobs as job
            where
                job.status = 'waiting'
                and job.error_kind = 'auth'
                and job.run_at > now()
            order by job.id
            for update skip locked
        ));

    insert into pgworker.event_log (event, actor, detail)
    values (
        'breaker_closed', pgworker.actor(), jsonb_build_object('credential', p_credential)
    );

    perform pg_notify('pgworker', 'breaker_closed');

    return true;
end
$$;
