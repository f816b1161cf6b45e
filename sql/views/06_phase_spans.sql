-- phase_spans: phases that ended in the last 24 hours, each with the seconds from its first claim
-- to its end, waits and failed attempts included.
create or replace view pgworker.phase_spans as
select
    ended.workflow,
    ended.from_phase as phase,
    ended.client_id,
    ended.at as ended_at,
    extract(epoch from ended.at - began.at)::double precision as seconds
from pgworker.event_log as ended
cross join
    lateral (
        select min(event.at) as at
        from pgworker.event_log as event
        where
            event.client_id = ended.client_id
            and event.job_id = ended.job_id
            and event.to_phase = ended.from_phase
            and event.event in ('claimed', 'rescued', 'advanced')
            and event.id < ended.id
    ) as began
where
    ended.event in ('advanced', 'succeeded')
    and ended.at > now() - interval '24 hours';
