-- Notifies the watchers (pgworker.watchers) of new events, once in a transaction. No payload and
-- no transition table: while there is no watcher, this costs one look at an empty table, and
-- NOTIFY's lock on the whole cluster isn't taken. A watcher that registers at the same moment may
-- miss a notification: watchers also poll now and then.
-- security definer: the role that makes a transition needs no rights on the watchers.
-- The functions that write events forbid sequential scans, and this table has no index for the
-- question. Before PostgreSQL 18 a forbidden scan costs so much in the eyes of the planner that
-- JIT would compile each call, which takes thirty times as long as the transition.
create or replace function pgworker.event_log_watched()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = on
as $$
begin
    if exists (select 1 from pgworker.watchers where expires_at > now()) then
        perform pg_notify('pgworker_events', '');
    end if;

    return null;
end
$$;

drop trigger if exists pgworker_event_log_watched on pgworker.event_log;

create trigger pgworker_event_log_watched
after insert on pgworker.event_log
for each statement
execute function pgworker.event_log_watched();
