-- name: register
-- Subscribes to events for a minute; removes watchers that were not renewed.
with forgotten as (
    delete from pgworker.watchers
    where expires_at < now() - interval '1 minute'
)

insert into pgworker.watchers (id, expires_at)
values ($1, now() + interval '1 minute')
on conflict (id) do update
    set expires_at = excluded.expires_at;

-- name: unregister
delete from pgworker.watchers
where id = $1;

-- name: events
-- The newest events of several clients, each after an id of its own; oldest first.
select
    event.id,
    event.at,
    event.event,
    event.client_id,
    event.from_status,
    event.to_status,
    event.from_phase,
    event.to_phase,
    event.error_kind,
    event.error
from unnest($1::uuid[], $2::bigint[]) as watched (client_id, after_id)
inner join lateral (
    select logged.*
    from pgworker.events as logged
    where
        logged.client_id = watched.client_id
        and logged.id > watched.after_id
    order by logged.id desc
    limit 200
) as event on true
order by event.id;
