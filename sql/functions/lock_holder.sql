-- lock_holder: the session that has locked the client's row, in words for a person; null when it
-- can't be determined (several sessions share the lock, or the row is free by now).
-- A locked row carries the transaction of its locker in xmax (PostgreSQL's manual, 5.6 System
-- columns).
create or replace function pgworker.lock_holder(
    p_client_id uuid
)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select
        format(
            '%s (pid %s, %s)',
            coalesce(nullif(activity.application_name, ''), activity.usename),
            activity.pid,
            activity.state
        )
    from public.clients as client
    inner join pg_stat_activity as activity on client.xmax = activity.backend_xid
    where client.id = p_client_id;
$$;
