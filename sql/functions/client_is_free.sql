-- client_is_free: whether the client's row can be changed now; it stays locked until the caller's
-- transaction ends. False when another session has locked it. True for a row that doesn't exist,
-- or that row level security hides from this role: no other session can hold that up.
create or replace function pgworker.client_is_free(
    p_client_id uuid
)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform 1
    from public.clients as client
    where client.id = p_client_id
    for no key update skip locked;

    if found then
        return true;
    end if;

    return not exists (
        select 1
        from public.clients as client
        where client.id = p_client_id
    );
end
$$;
