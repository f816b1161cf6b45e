-- failure_group: an id that equal failures share: the same workflow, phase, kind and message,
-- apart from what differs from client to client.
create or replace function pgworker.failure_group(
    p_workflow text,
    p_phase text,
    p_error_kind text,
    p_error text
)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select
        left(
            encode(
                sha256(
                    convert_to(
                        jsonb_build_array(
                            p_workflow, p_phase, p_error_kind, pgworker.error_signature(p_error)
                        )::text,
                        'UTF8'
                    )
                ),
                'hex'
            ),
            16
        );
$$;
