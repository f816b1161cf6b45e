-- Transitions that cost less (docs/decisions/0009-what-a-transition-costs.md).

-- Each job changes the status of its client at least twice. An index that has the status in it
-- makes each of these changes write into every index of the table; without it they stay in
-- their page (heap-only tuples), as long as there is room in it. Who looks for clients of a
-- status finds the unfinished ones by their jobs.
drop index if exists public.clients_by_provisioning_status;

do $$
begin
    -- Not where somebody has chosen already. Nothing is rewritten.
    if exists (
        select 1
        from pg_catalog.pg_class as class
        where class.oid = 'public.clients'::regclass and class.reloptions is null
    ) then
        alter table public.clients set (fillfactor = 70);
    end if;
end
$$;

-- Since when a job has been in its phase, or since a person last put it there: each look at a
-- project that comes up asks, and must not read all earlier looks for it.
alter table public.client_provisioning_jobs
add column if not exists phase_began_at timestamptz not null default now();

comment on column public.client_provisioning_jobs.phase_began_at is
'When the job came into its phase, or was last put back into it by a person.';

-- Each transition leaves a dead entry in the index that it leaves. Claims step over them until
-- they are swept, so a thousand are enough for a sweep, however many finished rows there are.
alter table public.client_provisioning_jobs set (
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0.02
);

-- Looked up by client when a new job supersedes the failed one; few enough to be sorted when
-- people list them.
drop index if exists public.client_provisioning_jobs_failed;

create index client_provisioning_jobs_failed
on public.client_provisioning_jobs (client_id, workflow)
where status = 'failed';
