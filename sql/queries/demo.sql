-- name: lock
-- One demo at a time; held until its session ends.
select pg_try_advisory_lock(7470736558);

-- name: tenants
-- Databases that an earlier demo left, found by the names that the provider gives.
select datname as name
from pg_catalog.pg_database
where datname ~ '^pgw_[0-9a-f]{32}$';

-- name: reset
-- The demo starts from scratch; its server holds nothing else.
drop schema if exists pgworker cascade;

drop table if exists public.client_provisioning_jobs, public.clients cascade;

-- name: insert_clients
-- What any program does to have clients provisioned: everything else follows from it.
insert into public.clients (name, auto_provision)
select
    given.name,
    true as auto_provision
from unnest($1::text[]) as given (name);
