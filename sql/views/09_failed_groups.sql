-- failed_groups: failed jobs grouped by equal errors, the largest group first: one fix, one retry
-- (pgworker.retry_group). sample_error and the sample clients are of the newest failures;
-- signature is what all errors of the group have in common.
create or replace view pgworker.failed_groups as
select
    failed.group_id,
    failed.workflow,
    failed.phase,
    failed.error_kind,
    count(*) as jobs,
    min(failed.failed_at) as oldest_failed_at,
    max(failed.failed_at) as newest_failed_at,
    (array_agg(failed.last_error order by failed.failed_at desc))[1] as sample_error,
    (array_agg(failed.client_id order by failed.failed_at desc))[1:5] as sample_client_ids,
    (array_agg(failed.client_name order by failed.failed_at desc))[1:5] as sample_client_names,
    pgworker.error_signature(
        (array_agg(failed.last_error order by failed.failed_at desc))[1]
    ) as signature,
    pgworker.remedy(failed.error_kind) as what_helps
from (
    select
        pgworker.failure_group(job.workflow, job.phase, job.error_kind, job.last_error)
            as group_id,
        job.workflow,
        job.phase,
        job.error_kind,
        job.last_error,
        job.client_id,
        job.client_name,
        job.failed_at
    from pgworker.failed_jobs as job
) as failed
group by failed.group_id, failed.workflow, failed.phase, failed.error_kind
order by count(*) desc, max(failed.failed_at) desc;
