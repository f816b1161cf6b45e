-- name: providers_in_use
-- Providers that created the tenant of some client, or were going to.
select intent.provider
from pgworker.intents as intent
union
select client.additional_settings -> 'provisioning' ->> 'provider' as provider
from public.clients as client
where
    client.project_ref is not null
    and client.additional_settings -> 'provisioning' ->> 'provider' is not null
order by provider;

-- name: owners
-- Every client, with what is recorded of its tenant. `job_status` is of the job that a retry takes.
select
    client.id,
    client.name,
    client.provisioning_status as status,
    coalesce(
        intent.provider, client.additional_settings -> 'provisioning' ->> 'provider'
    ) as provider,
    intent.name as tenant_name,
    intent.ref as recorded_ref,
    client.project_ref as shown_ref,
    begun.creates > 0 as create_was_sent,
    extract(epoch from now() - begun.unanswered_at)::double precision as seconds_unanswered,
    exists(
        select 1
        from public.client_provisioning_jobs as live
        where live.client_id = client.id and live.status in ('queued', 'running', 'waiting')
    ) as is_live,
    (
        select job.status
        from public.client_provisioning_jobs as job
        where job.client_id = client.id
        order by (job.status = 'failed') desc, job.id desc
        limit 1
    ) as job_status,
    array(
        select secret.field
        from pgworker.tenant_secrets as secret
        where secret.client_id = client.id
    ) as secrets
from public.clients as client
left join pgworker.intents as intent on client.id = intent.client_id and intent.kind = 'tenant'
cross join
    lateral (
        select
            count(*) as creates,
            max(step.intended_at) filter (
                where step.state in ('intended', 'unknown')
            ) as unanswered_at
        from pgworker.steps as step
        where step.client_id = client.id and step.step = 'create_project'
    ) as begun
order by client.id;

-- name: retry
select pgworker.reconcile_retry($1, $2)
from pgworker.act_for(null, 'cli');

-- name: settle
select pgworker.reconcile_settle($1, $2)
from pgworker.act_for(null, 'cli');

-- name: show
select pgworker.reconcile_show($1, $2, $3)
from pgworker.act_for(null, 'cli');

-- name: begin_delete
select pgworker.reconcile_begin_delete($1, $2, $3)
from pgworker.act_for(null, 'cli');

-- name: end_delete
select pgworker.reconcile_end_delete($1, $2, $3, $4)
from pgworker.act_for(null, 'cli');
