-- Most files of this set record that they ran: two rows of one version are a file applied twice.
-- This one doesn't: databases of the provider `postgres` get it from their template.
create table public.runs (
    version text not null,
    ran_at timestamptz not null default now()
);

alter table public.runs enable row level security;

grant select on public.runs to service_role;
