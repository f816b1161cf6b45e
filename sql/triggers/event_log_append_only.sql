-- The audit trail is append-only.
create or replace function pgworker.event_log_append_only()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'pgworker.event_log is an audit trail: rows are added, never changed'
        using errcode = 'PW005';
end
$$;

drop trigger if exists pgworker_event_log_append_only on pgworker.event_log;

create trigger pgworker_event_log_append_only
before update or delete or truncate on pgworker.event_log
for each statement
execute function pgworker.event_log_append_only();
