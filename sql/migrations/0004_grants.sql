-- On a platform that is itself a Supabase project, the roles of its Data API get
-- privileges on new public tables by default; row level security does not hold back
-- TRUNCATE. anon and authenticated lose them; service_role may enqueue by plain SQL.
do $$
begin
    if exists (select 1 from pg_catalog.pg_roles where rolname = 'anon') then
        revoke all on public.client_provisioning_jobs from anon;
    end if;

    if exists (select 1 from pg_catalog.pg_roles where rolname = 'authenticated') then
        revoke all on public.client_provisioning_jobs from authenticated;
    end if;

    if exists (select 1 from pg_catalog.pg_roles where rolname = 'service_role') then
        grant select, insert, update on public.client_provisioning_jobs to service_role;
    end if;
end
$$;
