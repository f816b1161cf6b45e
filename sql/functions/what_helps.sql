-- what_helps: what a person can do about a failed job, by its kind of error, before it is retried.
create or replace function pgworker.what_helps(
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
        when 'permanent' then 'mend what the message names, then retry'
        when 'unknown' then 'look at the provider whether it happened, then retry'
        else 'the other side was not well for long: retry'
    end;
$$;
