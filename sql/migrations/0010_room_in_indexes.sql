-- Each transition writes a new version of the job's row, with an entry in each index. Half of
-- each leaf stays free for them: in a full one PostgreSQL looks for dead entries to delete, and
-- splits it when there are none, which cost a tenth of a transition. Holds for pages to come.
alter index public.client_provisioning_jobs_pkey set (fillfactor = 50);

alter index public.client_provisioning_jobs_one_live set (fillfactor = 50);

alter index public.client_provisioning_jobs_of_client set (fillfactor = 50);
