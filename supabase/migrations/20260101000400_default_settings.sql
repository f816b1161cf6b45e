insert into public.app_settings (key, value, is_public)
values
('app.name', '"My app"', true),
('app.locale', '"en"', true),
('members.default_role', '"member"', false)
on conflict (key) do nothing;
