-- A client inserted with auto_provision gets its job in the same transaction, by whatever way it
-- is inserted.
-- security definer: the inserting role needs rights on clients only.
create or replace function pgworker.clients_inserted()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into public.client_provisioning_jobs (client_id)
    select inserted.id
    from inserted
    where inserted.auto_provision
    order by inserted.created_at, inserted.id;

    return null;
end
$$;

drop trigger if exists pgworker_clients_inserted on public.clients;

create trigger pgworker_clients_inserted
after insert on public.clients
referencing new table as inserted
for each statement
execute function pgworker.clients_inserted();
