-- The reset that people type,
--
--     update client_provisioning_jobs set attempts = 0, claimed_at = null where …
--
-- puts a failed, waiting or running job back in line at its phase. A holder loses the
-- fence: its token is no longer the current one. The functions of pgworker never match
-- the condition, because those that clear claimed_at change the status too.
create or replace function pgworker.job_reset()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    new.status := 'queued';
    new.crashes := 0;
    new.phase_began_at := now();
    new.run_at := now();
    new.claimed_by := null;
    new.lease_expires_at := null;
    new.claim_token := old.claim_token + 1;
    new.waiting_for := null;
    new.finished_at := null;
    new.updated_at := now();

    insert into pgworker.event_log (
        event, actor, client_id, job_id, workflow, claim_token,
        from_status, to_status, from_phase, to_phase
    )
    values (
        'retried', pgworker.actor(), new.client_id, new.id, new.workflow, new.claim_token,
        old.status, 'queued', old.job_type, new.job_type
    );

    update public.clients
    set
        provisioning_status = 'queued',
        updated_at = now()
    where
        id = new.client_id
        and new.workflow = 'provision';

    perform pg_notify('pgworker', 'retried');

    return new;
end
$$;

drop trigger if exists pgworker_job_reset on public.client_provisioning_jobs;

create trigger pgworker_job_reset
before update of attempts, claimed_at on public.client_provisioning_jobs
for each row
when (
    old.status in ('failed', 'running', 'waiting')
    and new.status = old.status
    and new.attempts = 0
    and new.claimed_at is null
)
execute function pgworker.job_reset();
