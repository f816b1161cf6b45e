-- Every file of this set writes down that it ran: two rows of one version are a file applied twice.
-- This one doesn't: it is what a database of the provider `postgres` has from its template.
create table public.runs (
    version text not null,
    ran_at timestamptz not null default now()
);

alter table public.runs enable row level security;

grant select on public.runs to service_role;
