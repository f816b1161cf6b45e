-- register_worker: adds the worker to worker_status, and removes those not seen for a day.
create or replace function pgworker.register_worker(
    p_worker text,
    p_hostname text,
    p_pid integer,
    p_version text,
    p_concurrency integer,
    p_lease interval
)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    delete from pgworker.workers
    where last_seen_at < now() - interval '1 day';

    insert into pgworker.workers (id, hostname, pid, version, concurrency, lease)
    values (p_worker, p_hostname, p_pid, p_version, p_concurrency, p_lease)
    on conflict (id) do update
        set
            state = 'running',
            started_at = now(),
            last_seen_at = now();
$$;
