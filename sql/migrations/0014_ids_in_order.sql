-- Ids of clients come in the order of time (UUID version 7, RFC 9562), in a table that migration 1
-- has made. Each transition of a job writes into indexes that go by its client; a random id puts
-- that at a random place of each (docs/decisions/0013-ids-in-the-order-of-time.md). Where the table
-- is the platform's own, its default stays.
do $$
begin
    if not exists (
        select 1
        from pg_catalog.pg_class as class
        inner join pg_catalog.pg_attribute as attribute on class.oid = attribute.attrelid
        inner join pg_catalog.pg_attrdef as initial
            on attribute.attrelid = initial.adrelid and attribute.attnum = initial.adnum
        where
            class.oid = 'public.clients'::regclass
            and attribute.attname = 'id'
            and pg_catalog.pg_get_expr(initial.adbin, initial.adrelid) = 'gen_random_uuid()'
            -- As migration 1 makes it: these columns in this order, and nobody sees a row.
            and class.relrowsecurity
            and array(
                select made.attname::text
                from pg_catalog.pg_attribute as made
                where made.attrelid = class.oid and made.attnum > 0
                order by made.attnum
            ) = array[
                'id', 'name', 'auto_provision', 'provisioning_status', 'provisioning_error',
                'provisioning_started_at', 'provisioning_completed_at', 'schema_version',
                'project_ref', 'project_url', 'additional_settings', 'created_at', 'updated_at'
            ]
    ) then
        return;
    end if;

    if to_regprocedure('pg_catalog.uuidv7()') is not null then
        alter table public.clients alter column id set default uuidv7();
    else
        -- Before PostgreSQL 18: a random one (version 4) whose first six bytes are the milliseconds,
        -- and whose version becomes 7 by two bits.
        alter table public.clients alter column id set default encode(
            set_bit(
                set_bit(
                    overlay(
                        uuid_send(gen_random_uuid())
                        placing substring(
                            int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint)
                            from 3
                        )
                        from 1 for 6
                    ),
                    52, 1
                ),
                53, 1
            ),
            'hex'
        )::uuid;
    end if;
end
$$;
