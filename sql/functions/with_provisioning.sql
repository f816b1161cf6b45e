-- with_provisioning: additional_settings with p_provisioning, what the provider really gave,
-- merged in under the key `provisioning`; every other key stays as it is. Null adds nothing.
create or replace function pgworker.with_provisioning(
    p_settings jsonb,
    p_provisioning jsonb
)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
    select
        case
            when p_provisioning is null then p_settings
            when jsonb_typeof(p_settings -> 'provisioning') = 'object'
                then jsonb_set(
                    p_settings, '{provisioning}', (p_settings -> 'provisioning') || p_provisioning
                )
            when jsonb_typeof(p_settings) = 'object'
                then p_settings || jsonb_build_object('provisioning', p_provisioning)
            else jsonb_build_object('provisioning', p_provisioning)
        end;
$$;
