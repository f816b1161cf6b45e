-- pause: no job of the workflow p_scope ('all': of any) is claimed until resume. Running jobs go
-- on. Safe to repeat; returns true unless the scope was paused already.
create or replace function pgworker.pause(
    p_scope text default 'all'
)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into pgworker.pauses (scope, paused_by)
    values (p_scope, pgworker.actor())
    on conflict (scope) do nothing;

    if not found then
        return false;
    end if;

    insert into pgworker.event_log (event, actor, detail)
    values ('paused', pgworker.actor(), jsonb_build_object('scope', p_scope));

    return true;
end
$$;
