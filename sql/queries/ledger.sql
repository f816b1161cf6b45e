-- name: commit_intent
-- The client's intent and the password that goes with it: made now, or as an earlier try left
-- them; returns whether both are new. Only the holder of the job may, otherwise PW001; the same
-- holds for `record_ref` and `secrets.put`, one statement each. Doesn't wait for the disk:
-- `begin_step` comes before anything is made outside, and waits for everything that was committed
-- before it.
with held as materialized (
    select
        pgworker.check_claim($1, $2) as is_held,
        set_config('synchronous_commit', 'off', true) as is_relaxed
),

password as (
    insert into pgworker.tenant_secrets (client_id, field, key_id, nonce, ciphertext)
    select
        $3 as client_id,
        $7 as field,
        $8 as key_id,
        $9 as nonce,
        $10 as ciphertext
    from held
    on conflict (client_id, field) do nothing
    returning field
),

intent as (
    insert into pgworker.intents (client_id, kind, provider, name, request)
    select
        $3 as client_id,
        'tenant' as kind,
        $4 as provider,
        $5 as name,
        $6 as request
    from held
    on conflict (client_id, kind) do nothing
    returning name
)

select exists (select from intent) and exists (select from password) as are_new;

-- name: find_intent
-- The client's intent, its password and its ref. Creates count from the last time that a person
-- queued the job: that person has looked, and allows further ones. A refused create made nothing.
-- A step used the password that is stored now if it began after that was stored; of several
-- creates, any may have made the tenant.
with password as (
    select
        key_id,
        nonce,
        ciphertext,
        created_at
    from pgworker.tenant_secrets
    where client_id = $1 and field = $2
),

taken as (
    select
        max(step.intended_at) filter (where step.step = 'create_project') as created_at,
        count(*) filter (
            where
            step.step = 'create_project'
            and step.intended_at >= (
                select max(event.at)
                from pgworker.event_log as event
                where
                    event.client_id = $1
                    and event.event in ('enqueued', 'retried')
            )
        ) as creates,
        min(step.intended_at) filter (where step.step = 'create_project')
        >= min(password.created_at) as password_went_with_create,
        bool_or(
            step.step = 'set_password'
            and step.state = 'done'
            and step.intended_at >= password.created_at
        ) as password_was_set
    from pgworker.steps as step
    left join password on true
    where
        step.client_id = $1
        and step.step in ('create_project', 'set_password')
        and step.state <> 'refused'
)

select
    intent.provider,
    intent.name,
    intent.request,
    intent.ref,
    extract(epoch from now() - taken.created_at)::double precision as seconds_since_create,
    taken.creates,
    coalesce(taken.password_went_with_create, false) as password_went_with_create,
    coalesce(taken.password_was_set, false) as password_was_set,
    password.key_id,
    password.nonce,
    password.ciphertext
from pgworker.intents as intent
cross join taken
left join password on true
where intent.client_id = $1 and intent.kind = 'tenant';

-- name: record_ref
-- The tenant of the intent exists; its ref is never taken back. The ref, and what the provider
-- really gave, are on the client at once, however the phase ends. The steps that made the tenant
-- are recorded in the same statement. An adopted updated_at may be without a time zone: UTC then.
with held as materialized (
    select
        pgworker.end_step($3, $1, $2, $7, 'done') as has_ended,
        set_config('timezone', 'UTC', true) as timezone
),

intent as (
    update pgworker.intents
    set
        ref = $4,
        updated_at = now()
    from held
    where client_id = $3 and kind = 'tenant'
)

update public.clients
set
    project_ref = $4,
    project_url = $5,
    additional_settings = pgworker.with_provisioning(additional_settings, $6),
    updated_at = now()
from held
where id = $3;
