-- name: begin_step
-- Records in the same statement what a look-up has found of the same step at other targets.
with found as materialized (
    select pgworker.confirm_steps($1, $2, $3, $4, $8)
)

select pgworker.begin_step($1, $2, $3, $4, $5, $6, $7)
from found;

-- name: end_step
-- Doesn't wait for the disk: the job's next transition does, and waits for what was committed
-- before it. A server that crashes in between loses both, and the next holder looks up what
-- happened.
with relaxed as materialized (
    select set_config('synchronous_commit', 'off', true) as is_relaxed
)

select pgworker.end_step($1, $2, $3, $4, $5)
from relaxed;

-- name: confirm_steps
select pgworker.confirm_steps($1, $2, $3, $4, $5);
