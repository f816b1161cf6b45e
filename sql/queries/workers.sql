-- name: register
select pgworker.register_worker($1, $2, $3, $4, $5, $6);

-- name: set_state
update pgworker.workers
set
    state = $2,
    last_seen_at = now()
where id = $1;
