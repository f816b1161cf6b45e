-- failed_jobs: what needs a person, newest first, with what would help.
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
    case job.error_kind
        when 'quota'
            then 'buy or free capacity at the provider, then: pgworker retry --failed --kind quota'
        when 'auth'
            then 'give pgworker a credential that the provider accepts, then retry'
        when 'permanent'
            then 'mend what the message names, then: pgworker retry ' || job.client_id
        when 'unknown'
            then 'look at the provider whether it happened, then: pgworker retry ' || job.client_id
        else 'the other side was not well for long; retry: pgworker retry ' || job.client_id
    end as what_helps,
    job.finished_at as failed_at,
    job.created_at
from pgworker.job_status as job
where job.status = 'failed'
order by job.finished_at desc;
