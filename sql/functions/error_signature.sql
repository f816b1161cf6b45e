-- error_signature: an error's message without what differs from client to client (ids, refs,
-- numbers, how often it was tried): messages that are the same then have the same cause.
-- Numbers that are part of a word stay: 20260101000000_init.sql:3 names a place.
create or replace function pgworker.error_signature(
    p_error text
)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select
        regexp_replace(
            regexp_replace(
                regexp_replace(
                    regexp_replace(
                        left(p_error, 2000),
                        '^gave up after \d+ attempts: ',
                        ''
                    ),
                    '[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}',
                    '…',
                    'gi'
                ),
                '\m([a-z]{20}|[0-9a-f]{12,})\M',
                '…',
                'g'
            ),
            '(?<![\w.:])\d+(\.\d+)?(?![\w.:]\w)',
            '#',
            'g'
        );
$$;
