-- is_poison: whether a job whose worker has just fallen silent is what made it fall. Not unless the
-- worker held nothing else. While workers that never held this job fall silent as well, there is
-- another cause (a node that is short of memory, a deployment that kills): then it takes twice as
-- many crashes, so that two such jobs can't excuse each other for ever.
create or replace function pgworker.is_poison(
    p_job_id bigint,
    p_client_id uuid,
    p_worker text,
    p_crashes integer,
    p_max_crashes integer
)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select
        p_crashes >= p_max_crashes
        and pgworker.fell_alone(p_worker)
        and (
            p_crashes >= 2 * p_max_crashes
            or not exists (
                select 1
                from pgworker.workers as worker
                where
                    worker.jobs_when_silent is not null
                    and worker.last_seen_at > now() - interval '10 minutes'
                    and worker.id <> p_worker
                    and not exists (
                        select 1
                        from pgworker.event_log as event
                        where
                            event.client_id = p_client_id
                            and event.job_id = p_job_id
                            and event.actor = worker.id
                            and event.event in ('claimed', 'rescued')
                    )
            )
        );
$$;
