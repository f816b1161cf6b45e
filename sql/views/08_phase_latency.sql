-- phase_latency: seconds that phases took from their first claim to their end, waits and failed
-- attempts included, for the phases that ended in the last 24 hours.
create or replace view pgworker.phase_latency as
select
    span.workflow,
    span.phase,
    count(*) as count,
    percentile_cont(0.5) within group (order by span.seconds) as p50_seconds,
    percentile_cont(0.95) within group (order by span.seconds) as p95_seconds,
    max(span.seconds) as max_seconds
from pgworker.phase_spans as span
group by span.workflow, span.phase;
