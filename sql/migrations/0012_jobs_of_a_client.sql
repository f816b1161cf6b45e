-- A job's row gets a new entry in this index whenever its status changes, at a random place. In a
-- tree that is a search from the root, and now and then a full page, in which PostgreSQL looks for
-- dead entries to delete; in a hash index it is one page. A client has few jobs: the newest of
-- them is found by sorting them.
drop index if exists public.client_provisioning_jobs_of_client;

create index client_provisioning_jobs_of_client
on public.client_provisioning_jobs using hash (client_id);
