-- name: create_client
-- The client's id, and whether it is new. Called in a select list, which is evaluated after its
-- `from`: of two functions in one `from` either may come first.
select
    (added.result).client_id as client_id,
    (added.result).is_new as is_new
from (
    select pgworker.add_client($1, $2, $3, $4, $5, $6, $7) as result
    from pgworker.act_for($8)
) as added;

-- name: set_schema_version
-- An adopted updated_at may be without a time zone: it is UTC then.
update public.clients
set
    schema_version = $2,
    updated_at = now()
from (select set_config('timezone', 'UTC', true) as timezone) as pinned
where id = $1;

-- name: retry
select pgworker.retry($1)
from pgworker.act_for($2);

-- name: retry_group
select pgworker.retry_group($1)
from pgworker.act_for($2);

-- name: cancel
select pgworker.cancel($1)
from pgworker.act_for($2);

-- name: workflows
select distinct workflow
from pgworker.phases
order by workflow;

-- name: pause
select pgworker.pause($1)
from pgworker.act_for($2);

-- name: resume
select pgworker.resume($1)
from pgworker.act_for($2);
