-- utc: a time of `clients` with its time zone. In an adopted table it may be without one, and is
-- UTC then: the functions and triggers that write such times have their time zone pinned to it.
-- Two of them, one for each type. In PL/pgSQL: a third of a microsecond a call, which is a third of
-- what SQL takes when the search_path is pinned.
create or replace function pgworker.utc(
    p_at timestamp with time zone
)
returns timestamp with time zone
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return p_at;
end
$$;

create or replace function pgworker.utc(
    p_at timestamp without time zone
)
returns timestamp with time zone
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return p_at at time zone 'UTC';
end
$$;
