insert into public.notes (body) values ('the first');

insert into public.runs (version) values ('20260101000300');
