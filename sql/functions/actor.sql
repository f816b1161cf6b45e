-- actor: who acts, for the audit trail, as in `cli:pgworker for alice`: the interface (cli for
-- the command line, otherwise sql), the role that is signed in, and the person whom it acts for.
-- The role is a fact. The other two are the program's word, given to act_for; they never replace
-- the role.
create or replace function pgworker.actor()
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select
        case current_setting('pgworker.interface', true) when 'cli' then 'cli' else 'sql' end
        || ':' || session_user
        || coalesce(' for ' || nullif(current_setting('pgworker.on_behalf_of', true), ''), '');
$$;
