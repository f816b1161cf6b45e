create index concurrently if not exists notes_by_body on public.notes (body);
