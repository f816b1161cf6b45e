-- name: begin_step
-- What a look has found of the same step, at other targets, is told along.
with found as materialized (
    select pgworker.confirm_steps($1, $2, $3, $4, $8)
)

select pgworker.begin_step($1, $2, $3, $4, $5, $6, $7)
from found;

-- name: end_step
-- Waits for no disk: the job's next transition does, and waits for what was committed before it. A
-- server that crashes in between forgets both, and whoever goes on looks.
with relaxed as materialized (
    select set_config('synchronous_commit', 'off', true) as is_relaxed
)

select pgworker.end_step($1, $2, $3, $4, $5)
from relaxed;

-- name: confirm_steps
select pgworker.confirm_steps($1, $2, $3, $4, $5);
