-- act_for: what actor says of the rest of this transaction: the person whom it acts for (null:
-- none is known), and the interface, sql or cli.
create or replace function pgworker.act_for(
    p_person text,
    p_interface text default 'sql'
)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    select set_config('pgworker.on_behalf_of', coalesce(p_person, ''), true);

    select set_config('pgworker.interface', p_interface, true);
$$;
