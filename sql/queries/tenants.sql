-- name: commit_intent
-- The client's intent: made now, or as an earlier try left it. A person who put the job back
-- in line since the newest create has looked, and allows further creates.
insert into pgworker.intents as intent (
    client_id, kind, provider, name, request, job_id, claim_token
)
values ($1, 'tenant', $2, $3, $4, $5, $6)
on conflict (client_id, kind) do update
    set
        job_id = excluded.job_id,
        claim_token = excluded.claim_token,
        creates = case
            when
                exists (
                    select 1
                    from pgworker.event_log as event
                    where
                        event.client_id = excluded.client_id -- noqa: RF01
                        and event.event in ('enqueued', 'retried')
                        and event.at > intent.create_sent_at -- noqa: RF01
                )
                then 0
            else intent.creates
        end
returning
    intent.provider,
    intent.name,
    intent.request,
    intent.state,
    intent.creates,
    intent.ref,
    extract(epoch from now() - intent.create_sent_at)::double precision as seconds_since_create;

-- name: mark_creating
-- Right before a create is sent; the answer may get lost from here on.
update pgworker.intents
set
    state = 'creating',
    creates = creates + 1,
    create_sent_at = now(),
    updated_at = now()
where client_id = $1 and kind = 'tenant';

-- name: mark_refused
-- The provider said a definite no: nothing was created by that request, and it isn't one of
-- those without an answer.
update pgworker.intents
set
    state = 'intent',
    creates = greatest(creates - 1, 0),
    updated_at = now()
where client_id = $1 and kind = 'tenant';

-- name: fulfil
-- What the intent was for exists. Its ref is never taken back.
update pgworker.intents
set
    state = 'created',
    ref = $2,
    updated_at = now()
where client_id = $1 and kind = 'tenant';

-- name: renew_lease
-- The whole lease lies before a request that must not outlive it.
update public.client_provisioning_jobs
set lease_expires_at = greatest(lease_expires_at, now() + $2)
where id = $1;

-- name: show_project
-- The ref, and what was really got, are on the client at once, whatever becomes of the phase.
update public.clients
set
    project_ref = $2,
    project_url = $3,
    additional_settings = pgworker.with_provisioning(additional_settings, $4),
    updated_at = now()
where id = $1;

-- name: intent_of
-- Which provider made the client's tenant, and its ref.
select
    provider,
    name,
    ref,
    request
from pgworker.intents
where client_id = $1 and kind = 'tenant';

-- name: phase_seconds
-- Seconds since the job came into its phase, or was put back into it by a person.
select extract(epoch from now() - max(event.at))::double precision
from pgworker.event_log as event
where
    event.client_id = $1
    and event.job_id = $2
    and event.to_phase = $3
    and (
        event.event in ('enqueued', 'retried')
        or (event.event = 'advanced' and event.from_phase <> event.to_phase)
    );

-- name: admit
select
    wait,
    reason,
    is_probe
from pgworker.admit($1, $2);

-- name: open_breaker
select pgworker.open_breaker($1, $2, $3);

-- name: close_breaker
select pgworker.close_breaker($1);

-- name: register_phase
insert into pgworker.phases (workflow, job_type, client_status, ordinal)
values ($1, $2, $3, $4)
on conflict (workflow, job_type) do update
    set
        client_status = excluded.client_status,
        ordinal = excluded.ordinal
    where
    phases.client_status is distinct from excluded.client_status
    or phases.ordinal <> excluded.ordinal;

-- name: forget_phases
-- Phases of a workflow that it no longer has.
delete from pgworker.phases
where workflow = $1 and job_type <> all($2::text[]);
