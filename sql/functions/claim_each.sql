-- claim_each: as claim, but job by job, for when claim was refused as a whole: a trigger, check or
-- rule of the platform refuses to change one client's row, or another session has locked it.
-- A job whose client is locked is put aside for a moment (`put_aside`). Any other error belongs to
-- its job: it fails with the server's message, or backs off where the error may pass
-- (`refuse_claim`). Each job is a subtransaction, which is why claim itself doesn't do so.
-- Raises the error when it is about the table and not about a row: the server's own "permission
-- denied" or "no such column", for every job that was tried.
create or replace function pgworker.claim_each(
    p_worker text,
    p_limit integer,
    p_lease interval,
    p_workflows text[],
    p_in_hand integer,
    p_max_crashes integer default 5
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
    v_id bigint;
    v_client_id uuid;
    v_taken bigint[] := '{}';
    v_refused bigint[] := '{}';
    v_sqlstates text[] := '{}';
    v_messages text[] := '{}';
    v_sqlstate text;
    v_message text;
    v_context text;
    v_is_about_rows boolean := false;
begin
    v_due := pgworker.due_jobs(
        p_worker, p_limit, p_lease, p_workflows, p_max_crashes, p_in_hand
    );

    for v_id, v_client_id in
        select
            job.id,
            job.client_id
        from public.client_provisioning_jobs as job
        where job.id = any(v_due.queued || v_due.rested || v_due.silent)
        order by job.priority desc, job.created_at, job.id
        limit p_limit
    loop
        if not pgworker.client_is_free(v_client_id) then
            v_is_about_rows := true;
            perform pgworker.put_aside(p_worker, v_id);
            continue;
        end if;

        begin
            perform pgworker.take_jobs(
                p_worker, p_lease, array[v_id], v_due.rested, v_due.silent
            );
            v_taken := v_taken || v_id;
        exception
            -- `others` leaves out the first two.
            when query_canceled or assert_failure or others then
                get stacked diagnostics
                    v_sqlstate = returned_sqlstate,
                    v_message = message_text,
                    v_context = pg_exception_context;

                if v_sqlstate = '55P03' then
                    v_is_about_rows := true;
                    perform pgworker.put_aside(p_worker, v_id);
                    continue;
                end if;

                v_refused := v_refused || v_id;
                v_sqlstates := v_sqlstates || v_sqlstate;
                v_messages := v_messages || v_message;
                -- The context begins with what raised the error: a trigger's function, or our own.
                -- "Permission denied" for a table that we may update is a policy's word on a row.
                v_is_about_rows := v_is_about_rows
                    or left(v_sqlstate, 2) not in ('0A', '42')
                    or v_context !~ '^(SQL statement|PL/pgSQL function pgworker\.)'
                    or (
                        v_sqlstate = '42501'
                        and has_table_privilege('public.clients', 'select')
                        and has_table_privilege('public.clients', 'update')
                    );
        end;
    end loop;

    if cardinality(v_taken) = 0 and cardinality(v_refused) > 0 and not v_is_about_rows then
        raise exception using errcode = v_sqlstate, message = v_message;
    end if;

    for v_id, v_sqlstate, v_message in
        select *
        from unnest(v_refused, v_sqlstates, v_messages)
    loop
        perform pgworker.refuse_claim(p_worker, v_id, v_sqlstate, v_message);
    end loop;

    return query
    select job.*
    from public.client_provisioning_jobs as job
    where job.id = any(v_taken)
    order by job.priority desc, job.created_at, job.id;
end
$$;
