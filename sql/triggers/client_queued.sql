-- A client inserted with auto_provision shows queued in its first row version: an insert followed
-- by an update in the same transaction would write the row twice.
create or replace function pgworker.client_queued()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    new.provisioning_status := 'queued';

    return new;
end
$$;

drop trigger if exists pgworker_client_queued on public.clients;

create trigger pgworker_client_queued
before insert on public.clients
for each row
when (new.auto_provision)
execute function pgworker.client_queued();
