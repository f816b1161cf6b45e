-- remedy: what a person does about a failed job before it is retried, by its kind of error.
-- The only place with this advice; what shows it adds the command that fits.
create or replace function pgworker.remedy(
    p_error_kind text
)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select case p_error_kind
        when 'quota' then 'buy or free capacity at the provider, then retry'
        when 'auth' then 'give pgworker a credential that the provider accepts, then retry'
        when 'permanent' then 'fix what the message names, then retry'
        when 'unknown' then 'check at the provider whether it happened, then retry'
        when 'throttled' then 'wait until the provider accepts more requests, then retry'
        when 'transient' then 'check that provider and tenant are available, then retry'
        else 'read the message, then retry'
    end;
$$;
