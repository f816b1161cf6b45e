-- require_client: raises PW003 when there is no such client.
create or replace function pgworker.require_client(
    p_client_id uuid
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select 1 from public.clients where id = p_client_id) then
        raise exception 'there is no client %', p_client_id
            using errcode = 'PW003';
    end if;
end
$$;
