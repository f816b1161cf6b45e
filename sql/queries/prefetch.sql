-- name: briefings
-- What phases must know before they begin, for each of these jobs: the client, who made or is
-- to make its tenant, and whether any credential is refused at all. `offset 0` keeps it a look by
-- key for each job: joined, a few hundred jobs would be worth a walk over all clients.
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
    exists(select 1 from pgworker.breakers) as some_are_refused
from unnest($1::bigint[], $2::uuid[]) as asked (job_id, client_id)
cross join lateral (
    select
        client.id,
        client.name,
        client.provisioning_status as status,
        client.project_ref,
        client.project_url,
        client.schema_version,
        client.created_at,
        coalesce(client.additional_settings, '{}') as settings,
        intent.provider
    from public.clients as client
    left join pgworker.intents as intent
        on client.id = intent.client_id and intent.kind = 'tenant'
    where client.id = asked.client_id
    offset 0  -- noqa: AM09
) as client;
