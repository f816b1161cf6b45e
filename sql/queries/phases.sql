-- name: register_phase
insert into pgworker.phases (workflow, job_type, client_status, ordinal, may_cost_money)
values ($1, $2, $3, $4, $5)
on conflict (workflow, job_type) do update
    set
        client_status = excluded.client_status,
        ordinal = excluded.ordinal,
        may_cost_money = excluded.may_cost_money
    where
    phases.client_status is distinct from excluded.client_status
    or phases.ordinal <> excluded.ordinal
    or phases.may_cost_money <> excluded.may_cost_money;

-- name: unregister_phases
-- Removes the phases that the workflow no longer has.
delete from pgworker.phases
where workflow = $1 and job_type <> all($2::text[]);
