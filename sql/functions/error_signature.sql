-- error_signature: an error's message without what differs from client to client and from try to
-- try (ids, refs, addresses, times, numbers): equal signatures mean the same error. What
-- distinguishes errors stays: names of files and columns, SQLSTATEs in brackets, the status of an
-- answer.
create or replace function pgworker.error_signature(
    p_error text
)
returns text
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    v_patterns constant text[] := array[
        -- A UUID, then what is left of long hexadecimal words: names of tenants, ids of requests.
        '\m[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\M',
        '(?<![0-9a-zA-Z])[0-9a-f]{12,}(?![0-9a-zA-Z_])',
        -- A project's ref.
        '\m[a-z]{20}\M',
        -- A time, an address of IPv4 with its port.
        '\m\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?(Z|UTC|[+-]\d\d:?\d\d))?)?',
        '\m\d{1,3}(\.\d{1,3}){3}(:\d+)?\M',
        -- A number of its own; not a SQLSTATE, an answer's status, a file's line or part of a name.
        '(?<!\[)(?<!answered )(?<!\.sql:)\m\d+([.,:]\d+)*\M(?!\.[a-z])'
    ];
    v_pattern text;
    v_text text := regexp_replace(p_error, '^gave up after \d+ attempts: ', '');
begin
    foreach v_pattern in array v_patterns loop
        v_text := regexp_replace(v_text, v_pattern, '...', 'g');
    end loop;

    return v_text;
end
$$;
