-- resume: ends a pause and wakes the workers. Returns whether there was one.
create or replace function pgworker.resume(
    p_scope text default 'all'
)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from pgworker.pauses
    where scope = p_scope;

    if not found then
        return false;
    end if;

    insert into pgworker.event_log (event, actor, detail)
    values ('resumed', pgworker.actor(), jsonb_build_object('scope', p_scope));

    perform pg_notify('pgworker', 'resumed');

    return true;
end
$$;
