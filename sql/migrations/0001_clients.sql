-- The customer table of the platform: created when absent, adopted when present.
-- Adopting adds what is missing. It drops nothing and changes no type. Whether a table can be
-- adopted is decided before this file runs (pgworker/db/adoption). Nothing here asks for a right
-- that it doesn't need: a role that isn't the owner gets by, once the owner has added the columns.

do $$
begin
    -- Not `if not exists`, which asks for the right to create schemas even where there is one.
    if not exists (
        select 1
        from pg_catalog.pg_namespace
        where nspname = 'pgworker'
    ) then
        create schema pgworker;
    end if;
end
$$;

do $$
declare
    v_missing text;
begin
    if to_regclass('public.clients') is null then
        create table public.clients (
            id uuid primary key,
            name text not null,
            auto_provision boolean not null default false,
            provisioning_status text not null default 'not_provisioned',
            provisioning_error text,
            provisioning_started_at timestamptz,
            provisioning_completed_at timestamptz,
            schema_version text,
            project_ref text,
            project_url text,
            additional_settings jsonb not null default '{}',
            created_at timestamptz not null default now(),
            updated_at timestamptz not null default now()
        );

        -- Ids in the order of time (UUID version 7, RFC 9562). Each transition of a job writes
        -- into indexes that go by its client; a random id would put each entry at a random
        -- place (docs/decisions/0013-ids-in-the-order-of-time.md).
        if to_regprocedure('pg_catalog.uuidv7()') is not null then
            alter table public.clients alter column id set default uuidv7();
        else
            -- Before PostgreSQL 18: a random id (version 4) whose first six bytes are replaced
            -- by the milliseconds; two bits turn its version into 7.
            alter table public.clients alter column id set default encode(
                set_bit(
                    set_bit(
                        overlay(
                            uuid_send(gen_random_uuid())
                            placing substring(
                                int8send(
                                    floor(extract(epoch from clock_timestamp()) * 1000)::bigint
                                )
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

        -- On a platform that is itself a Supabase project, anon and authenticated see
        -- nothing. An adopted table keeps its security.
        alter table public.clients enable row level security;
    else
        -- One statement for all of them: the table is locked once.
        select string_agg(format('add column %I %s', wanted.name, wanted.definition), ', ')
        into v_missing
        from (
            values
            ('name', 'text'),
            ('auto_provision', 'boolean not null default false'),
            ('provisioning_status', 'text not null default ''not_provisioned'''),
            ('provisioning_error', 'text'),
            ('provisioning_started_at', 'timestamptz'),
            ('provisioning_completed_at', 'timestamptz'),
            ('schema_version', 'text'),
            ('project_ref', 'text'),
            ('project_url', 'text'),
            ('additional_settings', 'jsonb not null default ''{}'''),
            ('created_at', 'timestamptz not null default now()'),
            ('updated_at', 'timestamptz not null default now()')
        ) as wanted (name, definition)
        where
            not exists (
                select 1
                from pg_catalog.pg_attribute as attribute
                where
                    attribute.attrelid = 'public.clients'::regclass
                    and attribute.attname = wanted.name
                    and not attribute.attisdropped
            );

        if v_missing is not null then
            execute 'alter table public.clients ' || v_missing;
        end if;

        -- Names are for people only: where an adopted table has none, the id serves as one.
        if exists (
            select 1
            from pg_catalog.pg_attribute as attribute
            where
                attribute.attrelid = 'public.clients'::regclass
                and attribute.attname = 'name'
                and not attribute.attnotnull
        ) then
            update public.clients
            set name = id::text
            where name is null;

            -- What the platform's deferred triggers still had to do would forbid to alter it.
            set constraints all immediate;

            alter table public.clients alter column name set not null;
        end if;
    end if;

    -- Each transition of a job writes a new version of its client's row. With room in the page
    -- the new version stays there and no index is touched (heap-only tuples); 40, because many
    -- rows of a page may change at once (docs/decisions/0009-what-a-transition-costs.md).
    -- Nothing is rewritten. Storage parameters that the owner has set stay; a partitioned table
    -- has none.
    if exists (
        select 1
        from pg_catalog.pg_class as class
        where
            class.oid = 'public.clients'::regclass
            and class.relkind = 'r'
            and class.reloptions is null
            and pg_has_role(class.relowner, 'usage')
    ) then
        alter table public.clients set (fillfactor = 40);
    end if;
end
$$;
