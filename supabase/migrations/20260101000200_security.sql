-- Row level security on every table, and every right said: new projects of Supabase give the
-- roles of the Data API none by themselves.
alter table public.app_settings enable row level security;
alter table public.members enable row level security;
alter table public.invitations enable row level security;
alter table public.audit_log enable row level security;

grant usage on schema public to anon, authenticated, service_role;

-- anon: the public settings, nothing else.
grant select on public.app_settings to anon;

create policy app_settings_public_read
on public.app_settings
for select
to anon
using (is_public);

-- authenticated: all users of the tenant see its settings and its members.
grant select on public.app_settings, public.members to authenticated;

create policy app_settings_read
on public.app_settings
for select
to authenticated
using (true);

create policy members_read
on public.members
for select
to authenticated
using (true);

-- service_role: the tenant's own backend. On Supabase it passes row level security; elsewhere
-- it needs the policies.
grant select, insert, update, delete
on public.app_settings, public.members, public.invitations
to service_role;

grant select, insert on public.audit_log to service_role;

create policy app_settings_service
on public.app_settings
to service_role
using (true)
with check (true);

create policy members_service
on public.members
to service_role
using (true)
with check (true);

create policy invitations_service
on public.invitations
to service_role
using (true)
with check (true);

create policy audit_log_service_read
on public.audit_log
for select
to service_role
using (true);

create policy audit_log_service_write
on public.audit_log
for insert
to service_role
with check (true);
