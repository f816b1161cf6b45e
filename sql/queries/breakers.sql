-- name: admit
select
    wait,
    reason,
    is_probe
from pgworker.admit($1, $2, $3, $4);

-- name: open_breaker
select pgworker.open_breaker($1, $2, $3);

-- name: close_breaker
select pgworker.close_breaker($1);
