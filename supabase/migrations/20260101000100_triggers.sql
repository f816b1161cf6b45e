-- touch_updated_at: sets updated_at, so that no program has to.
create function public.touch_updated_at()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
    new.updated_at := now();
    return new;
end
$$;

create trigger app_settings_touch
before update on public.app_settings
for each row execute function public.touch_updated_at();

create trigger members_touch
before update on public.members
for each row execute function public.touch_updated_at();

-- refuse_change: what is in the audit log stays as it is. Only the reference to a member
-- who was deleted may go.
create function public.refuse_change()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
    if
        tg_op = 'UPDATE'
        and new.actor_id is null
        and to_jsonb(new) - 'actor_id' = to_jsonb(old) - 'actor_id'
    then
        return new;
    end if;

    raise exception 'the audit log is append-only'
        using errcode = 'insufficient_privilege';
end
$$;

create trigger audit_log_append_only
before update or delete on public.audit_log
for each row execute function public.refuse_change();

-- Trigger functions aren't for calling through the Data API.
revoke execute on function public.touch_updated_at() from public;
revoke execute on function public.refuse_change() from public;
