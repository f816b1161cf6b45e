-- name: reserve
-- How many of the requests may be sent now, and when the others may ask again.
select
    granted,
    asked_at,
    opened_at,
    end_is_known,
    wait,
    spread
from pgworker.reserve_requests($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: report
select pgworker.report_limit($1, $2, $3, $4, $5, $6, $7, $8);
