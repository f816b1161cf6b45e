-- Whoever watches (pgworker.watchers) is told that there are new events, once in a transaction.
-- No payload and no transition table: while nobody watches this costs one look at an empty
-- table, and NOTIFY's lock on the whole cluster is taken for nobody. A watcher that registers
-- in the same moment may miss one: it looks by itself now and then.
-- security definer: whoever may make a transition needs no rights on the watchers.
create or replace function pgworker.event_log_watched()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
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
