-- events: the audit trail. Every transition of every job, who made it and when, written in the
-- same transaction as the transition.
create or replace view pgworker.events as
select
    id,
    at,
    event,
    actor,
    client_id,
    job_id,
    workflow,
    claim_token,
    from_status,
    to_status,
    from_phase,
    to_phase,
    error_kind,
    error,
    detail
from pgworker.event_log;
