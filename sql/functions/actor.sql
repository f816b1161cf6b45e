-- actor: who acts, for the audit trail: the role that is signed in, and the person it says it
-- acts for (the setting pgworker.on_behalf_of, local to a transaction). The role is a fact, the
-- rest is its word: both are told.
create or replace function pgworker.actor()
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select
        'sql:' || session_user || coalesce(
            ' for ' || nullif(current_setting('pgworker.on_behalf_of', true), ''), ''
        );
$$;
