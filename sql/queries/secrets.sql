-- name: put
-- Fields of a client, by the holder of the job, or PW001; without a job they are a person's.
-- Overwrites: a repeated phase leaves one value, the newest. Written in the order in which
-- `lock_outdated` locks them, so that the two never deadlock. The holder of the job doesn't wait
-- for the disk: the transition that ends the phase does, and waits for what was committed before
-- it.
with held as materialized (
    select
        pgworker.check_claim($1, $2) as is_held,
        set_config('synchronous_commit', 'off', true) as is_relaxed
    where $1 is not null
)

insert into pgworker.tenant_secrets as secret (client_id, field, key_id, nonce, ciphertext)
select
    $3 as client_id,
    given.field,
    given.key_id,
    given.nonce,
    given.ciphertext
from
    unnest($4::text[], $5::text[], $6::bytea[], $7::bytea[])
        as given (field, key_id, nonce, ciphertext)
left join held on true
order by given.field collate "C" -- noqa: RF03
on conflict (client_id, field) do update
    set
        key_id = excluded.key_id,
        nonce = excluded.nonce,
        ciphertext = excluded.ciphertext,
        updated_at = now();

-- name: get_fields
select
    field,
    key_id,
    nonce,
    ciphertext
from pgworker.tenant_secrets
where client_id = $1;

-- name: lock_outdated
-- Rows to encrypt again, locked so that a phase which writes them at the same time isn't undone.
-- A row that is being written is waited for: left out, it would stay under a key that the
-- operator is about to throw away.
select
    client_id,
    field,
    key_id,
    nonce,
    ciphertext
from pgworker.tenant_secrets
where key_id <> $1
order by client_id, field collate "C"
limit 500
for update;

-- name: count_by_key
-- How many values each key encrypts.
select
    key_id,
    count(*) as secrets
from pgworker.tenant_secrets
group by key_id
order by key_id;

-- name: audit
-- A person saw the values, or rotated the keys: who, when, what; never the values.
insert into pgworker.event_log (event, actor, client_id, detail)
select
    $1 as event,
    pgworker.actor() as actor,
    $2 as client_id,
    $3 as detail
from pgworker.act_for(null, 'cli');
