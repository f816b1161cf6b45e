-- name: client
-- A client with its newest job, when that entered its phase, the id of the newest event, and
-- what to do about a failure.
select
    client.*,  -- noqa: AM04
    (
        select job.phase_began_at
        from public.client_provisioning_jobs as job
        where job.id = client.job_id
    ) as phase_began_at,
    coalesce(
        (
            select max(event.id)
            from pgworker.event_log as event
            where event.client_id = client.client_id
        ),
        0
    ) as newest_event_id,
    case
        when client.status = 'failed' and client.error_kind is not null
            then pgworker.remedy(client.error_kind)
    end as remedy
from include.client_status as client
where client.client_id = $1;

-- name: latency
-- All phases in order, with their durations in the last day; null where no phase ended. And hour
-- by hour, in three parallel arrays: the hours in which one ended (0 is the last one). One pass
-- over the day's events, which are the expensive part.
with span as materialized (
    select
        ended.workflow,
        ended.phase,
        ended.seconds,
        least(floor(extract(epoch from now() - ended.ended_at) / 3600), 23)::integer as hours_ago
    from pgworker.phase_spans as ended
),

whole as (
    select
        span.workflow,
        span.phase,
        count(*) as ended,
        percentile_cont(0.5) within group (order by span.seconds) as p50_seconds,
        percentile_cont(0.95) within group (order by span.seconds) as p95_seconds,
        max(span.seconds) as max_seconds
    from span
    group by span.workflow, span.phase
),

hourly as (
    select
        hour.workflow,
        hour.phase,
        array_agg(hour.hours_ago order by hour.hours_ago) as hours_ago,
        array_agg(hour.p50_seconds order by hour.hours_ago) as hourly_p50_seconds,
        array_agg(hour.p95_seconds order by hour.hours_ago) as hourly_p95_seconds
    from (
        select
            span.workflow,
            span.phase,
            span.hours_ago,
            percentile_cont(0.5) within group (order by span.seconds) as p50_seconds,
            percentile_cont(0.95) within group (order by span.seconds) as p95_seconds
        from span
        group by span.workflow, span.phase, span.hours_ago
    ) as hour
    group by hour.workflow, hour.phase
)

select
    phase.workflow,
    phase.job_type as phase,
    coalesce(whole.ended, 0) as ended,
    whole.p50_seconds,
    whole.p95_seconds,
    whole.max_seconds,
    hourly.hours_ago,
    hourly.hourly_p50_seconds,
    hourly.hourly_p95_seconds
from pgworker.phases as phase
left join whole
    on phase.workflow = whole.workflow and phase.job_type = whole.phase
left join hourly
    on phase.workflow = hourly.workflow and phase.job_type = hourly.phase
order by phase.workflow, phase.ordinal;
