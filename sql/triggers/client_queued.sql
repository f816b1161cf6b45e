-- A client inserted with auto_provision shows queued from its first version on: to insert it
-- and change it in the same transaction would write it twice.
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
