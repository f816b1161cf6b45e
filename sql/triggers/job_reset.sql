-- The reset that people type,
--
--     update client_provisioning_jobs set attempts = 0, claimed_at = null where ...
--
-- queues a failed, waiting or running job again, at its phase. A holder loses the fence: its
-- token is no longer the current one. The functions of pgworker never match the condition,
-- because those that clear claimed_at change the status or the token too.
-- An after trigger, though it writes the row a second time: with any before trigger for each
-- row, whatever its columns and its condition, PostgreSQL locks every row of every update first.
create or replace function pgworker.job_reset()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set lock_timeout = '1s'
as $$
begin
    -- Not among the trigger's conditions, which are parsed again for each statement that sets
    -- claimed_at: every claim, and every end of one.
    if old.status not in ('failed', 'running', 'waiting') then
        return null;
    end if;

    -- put_aside clears the claim of a job that may be waiting already. People don't write tokens.
    if new.claim_token <> old.claim_token then
        return null;
    end if;

    update public.client_provisioning_jobs
    set
        status = 'queued',
        crashes = 0,
        wait_code = null,
        phase_began_at = now(),
        run_at = now(),
        claimed_by = null,
        lease_expires_at = null,
        claim_token = old.claim_token + 1,
        waiting_for = null,
        finished_at = null,
        updated_at = now()
    where id = new.id;

    insert into pgworker.event_log (
        event, actor, client_id, job_id, workflow, claim_token,
        from_status, to_status, from_phase, to_phase
    )
    values (
        'retried', pgworker.actor(), new.client_id, new.id, new.workflow, old.claim_token + 1,
        old.status, 'queued', old.job_type, new.job_type
    );

    -- Of many jobs that are reset at once, one client that can't be changed doesn't hold up the
    -- others: the claim of its job says why, and names the job as failed.
    begin
        update public.clients
        set
            provisioning_status = 'queued',
            updated_at = now()
        where
            id = new.client_id
            and new.workflow = 'provision';
    exception
        -- `others` leaves out the first two.
        when query_canceled or assert_failure or others then
            null;
    end;

    perform pg_notify('pgworker', 'retried');

    return null;
end
$$;

drop trigger if exists pgworker_job_reset on public.client_provisioning_jobs;

create trigger pgworker_job_reset
after update of attempts, claimed_at on public.client_provisioning_jobs
for each row
when (
    new.status = old.status
    and new.attempts = 0
    and new.claimed_at is null
)
execute function pgworker.job_reset();
