-- name: clients
-- A page of clients with their newest jobs, newest client first.
select client.*  -- noqa: AM04
from
    pgworker.client_page($1, $2, $3, $4, $5, $6, $7) with ordinality as page (client_id, position)
inner join include.client_status as client on page.client_id = client.client_id
order by page.position;

-- name: jobs
-- A page of jobs, newest first.
select job.*  -- noqa: AM04
from pgworker.job_page($1, $2, $3, $4, $5, $6, $7) with ordinality as page (id, position)
inner join include.job_status as job on page.id = job.id
order by page.position;
