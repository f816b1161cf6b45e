insert into public.runs (version) values ('20260101000000');
