-- name: find_phase_inputs
-- What a phase must know before it starts, for each of these jobs: the client, the provider of its
-- tenant (null while no intent is recorded), and whether any breaker is open. `offset 0` keeps it
-- an index lookup for each job: for a few hundred jobs a plain join would scan all clients.
select
    asked.job_id,
    client.id,
    client.name,
    client.status,
    client.project_ref,
    client.project_url,
    client.schema_version,
    client.created_at,
    client.settings,
    client.provider,
    exists(select 1 from pgworker.breakers) as any_breaker_is_open
from unnest($1::bigint[], $2::uuid[]) as asked (job_id, client_id)
cross join lateral (
    select
        client.id,
        client.name,
        client.provisioning_status as status,
        client.project_ref,
        client.project_url,
        client.schema_version,
        pgworker.utc(client.created_at) as created_at,
        coalesce(client.additional_settings, '{}') as settings,
        intent.provider
    from public.clients as client
    left join pgworker.intents as intent
        on client.id = intent.client_id and intent.kind = 'tenant'
    where client.id = asked.client_id
    offset 0  -- noqa: AM09
) as client;
