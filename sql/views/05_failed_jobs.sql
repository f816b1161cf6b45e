-- failed_jobs: what needs a person, newest first. what_helps is what to do, with the command
-- that retries afterwards: all jobs of the kind where one cause stops them all.
create or replace view pgworker.failed_jobs as
select
    job.id,
    job.client_id,
    job.client_name,
    job.workflow,
    job.phase,
    job.attempts,
    job.error_kind,
    job.last_error,
    pgworker.remedy(job.error_kind) || ': pgworker retry ' || case
        when job.error_kind in ('quota', 'auth') then '--failed --kind ' || job.error_kind
        else job.client_id::text
    end as what_helps,
    job.finished_at as failed_at,
    job.created_at
from pgworker.job_status as job
where job.status = 'failed'
order by job.finished_at desc;
