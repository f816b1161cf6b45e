-- show_failure: the client shows the error of its job and, when the job has failed for good, that
-- it failed. A client that the platform's own trigger, check or rule doesn't let change keeps what
-- it shows: the job's failure counts without it. A lock passes, so it is raised: the caller tries
-- again.
create or replace function pgworker.show_failure(
    p_client_id uuid,
    p_error text,
    p_has_failed boolean
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
begin
    update public.clients as client
    set
        provisioning_status = case
            when p_has_failed then 'failed'
            else client.provisioning_status
        end,
        provisioning_error = p_error,
        updated_at = now()
    where client.id = p_client_id;
exception
    when lock_not_available then
        raise;
    -- `others` leaves out the first two.
    when query_canceled or assert_failure or others then
        return;
end
$$;
