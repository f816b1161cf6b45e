-- admit: whether a job may use this credential now. A null wait: yes. Otherwise the provider
-- refuses the credential, for the reason given. When probe_at of an open breaker has come, one
-- caller is let through as its probe, and no other as long as that job runs under the claim with
-- which it asked, however long its phase takes. A probe that never reports is followed by the
-- next one p_probe_every later, or once its claim is over.
create or replace function pgworker.admit(
    p_credential text,
    p_job_id bigint,
    p_claim_token bigint,
    p_probe_every interval,
    out wait interval,
    out reason text,
    out is_probe boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_probe_at timestamptz;
begin
    is_probe := false;

    -- The usual answer, and it locks nothing.
    if not exists (
        select 1
        from pgworker.breakers as breaker
        where breaker.credential = p_credential
    ) then
        return;
    end if;

    update pgworker.breakers as breaker
    set
        probe_at = now() + p_probe_every,
        probes = breaker.probes + 1,
        probe_job_id = p_job_id,
        probe_claim_token = p_claim_token
    where
        breaker.credential = p_credential
        and breaker.probe_at <= now()
        and not exists (
            select 1
            from public.client_provisioning_jobs as job
            where
                job.id = breaker.probe_job_id
                and job.claim_token = breaker.probe_claim_token
                and job.status = 'running'
                and job.lease_expires_at > now()
        )
    returning breaker.reason
    into reason;

    is_probe := found;

    if is_probe then
        return;
    end if;

    -- Read after the race for the probe, so that a caller that lost it waits for the next one.
    select
        breaker.reason,
        breaker.probe_at
    into reason, v_probe_at
    from pgworker.breakers as breaker
    where breaker.credential = p_credential;

    if found then
        -- Past probe_at: a probe is still running, and wakes the others when it is accepted.
        wait := case
            when v_probe_at > now() then greatest(v_probe_at - now(), interval '1 second')
            else p_probe_every
        end;
    end if;
end
$$;
