-- lock_bucket: the row of a bucket, locked until commit. When there is none, p_make makes one
-- whose window is over; without p_make the result is null then. Making one also removes up to a
-- hundred rows that were not used for a day: projects come and go, and rows are deleted as seldom
-- as they are made.
create or replace function pgworker.lock_bucket(
    p_credential text,
    p_scope text,
    p_endpoint text,
    p_make boolean
)
returns pgworker.rate_limits
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_bucket pgworker.rate_limits;
begin
    select bucket.*
    into v_bucket
    from pgworker.rate_limits as bucket
    where
        bucket.credential = p_credential
        and bucket.scope = p_scope
        and bucket.endpoint = p_endpoint
    for update;

    if found or not p_make then
        return v_bucket;
    end if;

    delete from pgworker.rate_limits
    where
        ctid = any(array(
            select bucket.ctid
            from pgworker.rate_limits as bucket
            where bucket.resets_at < now() - interval '1 day'
            limit 100
            for update skip locked
        ));

    insert into pgworker.rate_limits as bucket (
        credential, scope, endpoint, opened_at, resets_at
    )
    values (p_credential, p_scope, p_endpoint, '-infinity', '-infinity')
    on conflict (credential, scope, endpoint) do update
        set used = bucket.used
    returning bucket.*
    into v_bucket;

    return v_bucket;
end
$$;
