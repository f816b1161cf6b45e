-- add_client: inserts a client, and with it its job when p_auto_provision; returns the client's
-- id and whether it is new. With a key, a request that came before isn't carried out again: the
-- client of the first request is returned. Two requests with one key at the same time wait for
-- each other. A key belongs to its bearer, and is forgotten after a week.
-- Raises PW006 when the key came with a different request.
create or replace function pgworker.add_client(
    p_name text,
    p_auto_provision boolean,
    p_additional_settings jsonb,
    p_trace_context text default null,
    p_bearer text default null,
    p_key text default null,
    p_fingerprint bytea default null,
    out client_id uuid,
    out is_new boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
    v_fingerprint bytea;
begin
    if p_key is not null then
        delete from pgworker.idempotency_keys
        where ctid = any(array(
            select kept.ctid
            from pgworker.idempotency_keys as kept
            where kept.created_at < now() - interval '7 days'
            order by kept.created_at
            limit 100
            for update skip locked
        ));

        -- Waits for a concurrent insert of the same key, and then sees its row.
        insert into pgworker.idempotency_keys (bearer, key, fingerprint)
        values (p_bearer, p_key, p_fingerprint)
        on conflict do nothing;

        if not found then
            select kept.client_id, kept.fingerprint
            into client_id, v_fingerprint
            from pgworker.idempotency_keys as kept
            where kept.bearer = p_bearer and kept.key = p_key;

            if v_fingerprint is distinct from p_fingerprint then
                raise exception 'this Idempotency-Key came with a different request before'
                    using errcode = 'PW006';
            end if;

            is_new := false;
            return;
        end if;
    end if;

    perform set_config('pgworker.traceparent', coalesce(p_trace_context, ''), true);

    insert into public.clients (name, auto_provision, additional_settings)
    values (p_name, p_auto_provision, p_additional_settings)
    returning id
    into client_id;

    if p_key is not null then
        update pgworker.idempotency_keys as kept
        set client_id = add_client.client_id
        where kept.bearer = p_bearer and kept.key = p_key;
    end if;

    is_new := true;
end
$$;
