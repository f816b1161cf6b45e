-- A transition writes a new version of the job's row and of its client's. Where the page has room
-- for it, the old version isn't locked and logged first, the log holds what changed instead of the
-- whole row, and the client's indexes aren't touched (heap-only tuples). A crowd changes all rows
-- of a page at once: there must be room for each of them once more, until the versions before are
-- pruned. Holds for rows to come; nothing is rewritten.
alter table public.client_provisioning_jobs set (fillfactor = 40);

do $$
begin
    -- What migration 7 has set, and nobody else.
    if (
        select class.reloptions = array['fillfactor=70']
        from pg_catalog.pg_class as class
        where class.oid = 'public.clients'::regclass
    ) then
        alter table public.clients set (fillfactor = 40);
    end if;
end
$$;
