-- name: migration_lock
-- One migration at a time on one database; released when the transaction ends, because behind a
-- pooler in transaction mode a session's lock would stay with a connection that others use.
select pg_advisory_xact_lock(7470736557);

-- name: limit_waits
-- For the transaction only. A lock that we wait for is one that others queue up behind us for. A
-- statement may last: the table may be large, and the role's own limit is for its daily work.
select
    set_config('lock_timeout', $1, true) as lock_timeout,
    set_config('statement_timeout', '0', true) as statement_timeout,
    set_config('idle_in_transaction_session_timeout', '0', true) as idle_timeout,
    pg_backend_pid() as pid;

-- name: blockers
-- The sessions that keep a session of ours waiting, the oldest transaction first.
-- 0 stands for a prepared transaction, which has no session.
select
    (
        select format('%s.%s', namespace.nspname, class.relname)
        from pg_catalog.pg_class as class
        inner join pg_catalog.pg_namespace as namespace on class.relnamespace = namespace.oid
        where class.oid = waiting.relation
    ) as relation,
    blocking.pid,
    activity.application_name as application,
    activity.usename::text as role,
    activity.backend_type,
    activity.state,
    activity.xact_start as since,
    extract(epoch from clock_timestamp() - activity.xact_start)::double precision as seconds,
    upper(substring(activity.query from '^\s*([A-Za-z]+)')) as statement
from pg_catalog.pg_locks as waiting
cross join lateral unnest(pg_blocking_pids(waiting.pid)) as blocking (pid)
left join pg_catalog.pg_stat_activity as activity on blocking.pid = activity.pid
where
    not waiting.granted
    and waiting.pid = $1
order by activity.xact_start, blocking.pid
limit 5;

-- name: cancel
select pg_cancel_backend($1);
