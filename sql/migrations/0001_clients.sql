-- The customer table of the platform: created when absent, adopted when present.
-- Adopting adds what is missing. It never drops or narrows anything. An existing column
-- whose type can't hold our values is refused by name, before any change is made
-- (SQLSTATE PW010).

create schema if not exists pgworker;

do $$
declare
    v_expected constant jsonb := '{
        "id": ["uuid"],
        "name": ["text", "varchar", "citext"],
        "auto_provision": ["bool"],
        "provisioning_status": ["text", "varchar"],
        "provisioning_error": ["text", "varchar"],
        "provisioning_started_at": ["timestamptz"],
        "provisioning_completed_at": ["timestamptz"],
        "schema_version": ["text", "varchar"],
        "project_ref": ["text", "varchar"],
        "project_url": ["text", "varchar"],
        "additional_settings": ["jsonb"],
        "created_at": ["timestamptz"],
        "updated_at": ["timestamptz"]
    }';
    v_adopted boolean := to_regclass('public.clients') is not null;
    v_kind "char";
    v_column record;
begin
    if v_adopted then
        select relkind
        into v_kind
        from pg_catalog.pg_class
        where oid = 'public.clients'::regclass;

        if v_kind not in ('r', 'p') then
            raise exception 'public.clients is not a table; pgworker needs a table of that name'
                using errcode = 'PW010';
        end if;

        for v_column in
            select
                expected.key as name,
                expected.value as types,
                type.typname as type,
                attribute.atttypmod - 4 as length
            from jsonb_each(v_expected) as expected
            inner join pg_catalog.pg_attribute as attribute
                on
                    attribute.attrelid = 'public.clients'::regclass
                    and attribute.attname = expected.key
                    and not attribute.attisdropped
            inner join pg_catalog.pg_type as type on attribute.atttypid = type.oid
        loop
            if not v_column.types ? v_column.type::text then
                raise exception
                    'column clients.% is of type %; pgworker needs % (rename the column or change its type, then run pgworker db migrate again)',
                    v_column.name, v_column.type, v_column.types ->> 0
                    using errcode = 'PW010';
            end if;

            -- A value that doesn't fit would fail the statement that stores a job's result.
            -- Texts from outside (messages, URLs) have no length that we could promise.
            if
                v_column.type = 'varchar'
                and v_column.length >= 0
                and v_column.length < (case v_column.name
                    when 'name' then 0
                    when 'provisioning_status' then 32
                    when 'schema_version' then 64
                    when 'project_ref' then 64
                    else 1000000
                end)
            then
                raise exception
                    'column clients.% holds % characters; pgworker needs text (widen it, then run pgworker db migrate again)',
                    v_column.name, v_column.length
                    using errcode = 'PW010';
            end if;
        end loop;

        if not exists (
            select 1
            from pg_catalog.pg_index as index
            inner join pg_catalog.pg_attribute as attribute
                on index.indrelid = attribute.attrelid and attribute.attnum = index.indkey[0]
            where
                index.indrelid = 'public.clients'::regclass
                and index.indisunique
                and index.indpred is null
                and index.indnkeyatts = 1
                and attribute.attname = 'id'
        ) then
            raise exception 'clients.id must be a uuid primary key (or unique): jobs refer to it'
                using errcode = 'PW010';
        end if;
    end if;

    if not v_adopted then
        create table public.clients (
            id uuid primary key,
            name text not null
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
    ) then
        alter table public.clients set (fillfactor = 40);
    end if;
end
$$;

-- Names are for people only: where an adopted table has none, the id serves as one.
alter table public.clients add column if not exists name text;

update public.clients
set name = id::text
where name is null;

alter table public.clients
alter column name set not null,
add column if not exists auto_provision boolean not null default false,
add column if not exists provisioning_status text not null default 'not_provisioned',
add column if not exists provisioning_error text,
add column if not exists provisioning_started_at timestamptz,
add column if not exists provisioning_completed_at timestamptz,
add column if not exists schema_version text,
add column if not exists project_ref text,
add column if not exists project_url text,
add column if not exists additional_settings jsonb not null default '{}',
add column if not exists created_at timestamptz not null default now(),
add column if not exists updated_at timestamptz not null default now();

-- Lists of all clients, newest first, page by page; an adopted table may lack a time.
-- No index has provisioning_status in it: each change of a status would then write into every
-- index of the table. Clients of a status that isn't final are found by their jobs.
create index if not exists clients_by_age
on public.clients (coalesce(created_at, '-infinity') desc, id desc);
