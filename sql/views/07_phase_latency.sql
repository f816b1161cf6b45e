-- phase_latency: seconds that phases took from their first claim to their end, waits and
-- failed attempts included; those that ended in the last 24 hours.
create or replace view pgworker.phase_latency as
select
    spans.workflow,
    spans.phase,
    count(*) as count,
    percentile_cont(0.5) within group (order by spans.seconds) as p50_seconds,
    percentile_cont(0.95) within group (order by spans.seconds) as p95_seconds,
    max(spans.seconds) as max_seconds
from (
    select
        ended.workflow,
        ended.from_phase as phase,
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
        and ended.at > now() - interval '24 hours'
) as spans
group by spans.workflow, spans.phase;
