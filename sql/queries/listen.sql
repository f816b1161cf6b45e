-- name: server_started_at
-- Changes when the server restarts, and differs between a server and its standby.
select pg_postmaster_start_time();
