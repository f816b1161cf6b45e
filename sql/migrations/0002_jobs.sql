-- One row carries one client's workflow from phase to phase. sql/README.md describes the
-- state machine; a job changes only through the functions of schema pgworker.

create table public.client_provisioning_jobs (
    -- Each transition writes a new version of the row, with an entry in each index. Half of each
    -- leaf stays free for them: in a full leaf PostgreSQL looks for dead entries to delete, and
    -- splits it when there are none, which cost a tenth of a transition.
    id bigint generated always as identity primary key with (fillfactor = 50),
    client_id uuid not null references public.clients (id) on delete restrict,
    workflow text not null default 'provision',
    job_type text not null default 'create_project',
    status text not null default 'queued',
    priority smallint not null default 0,
    attempts integer not null default 0,
    max_attempts integer not null default 10,
    crashes integer not null default 0,
    last_error text,
    error_kind text,
    waiting_for text,
    wait_code text,
    run_at timestamptz not null default now(),
    claimed_at timestamptz,
    claimed_by text,
    lease_expires_at timestamptz,
    claim_token bigint not null default 0,
    checkpoint jsonb not null default '{}',
    trace_context text default nullif(current_setting('pgworker.traceparent', true), ''),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    finished_at timestamptz,
    phase_began_at timestamptz not null default now(),
    constraint client_provisioning_jobs_status check (
        status in ('queued', 'running', 'waiting', 'failed', 'succeeded', 'cancelled')
    ),
    constraint client_provisioning_jobs_error_kind check (
        error_kind in ('transient', 'throttled', 'quota', 'auth', 'permanent', 'unknown')
    ),
    constraint client_provisioning_jobs_counts check (
        attempts >= 0 and max_attempts > 0 and crashes >= 0
    )
)
with (
    -- Each transition leaves a dead entry in an index. Claims step over them until a vacuum
    -- removes them, so a thousand are enough for one, however many finished rows there are.
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0.02,
    -- Where the page has room for the new version of a row, the old one isn't locked and logged
    -- first, and the log holds only what changed. All rows of a page may change at once: each
    -- needs room for one more version until the older ones are pruned.
    fillfactor = 40
);

comment on table public.client_provisioning_jobs is
'One row carries one client''s workflow from phase to phase (pgworker).';

comment on column public.client_provisioning_jobs.waiting_for is
'What a waiting job waits for, in words for a person.';

comment on column public.client_provisioning_jobs.wait_code is
'The same for programs, where they decide by it: client_locked, or null.';

-- Stored, because each look at a project that comes up asks for it, and must not read all
-- earlier looks from the audit trail.
comment on column public.client_provisioning_jobs.phase_began_at is
'When the job came into its phase, or was last put back into it by a person.';

alter table public.client_provisioning_jobs enable row level security;

-- At most one live job per client and workflow. A failed job isn't live: a new job supersedes
-- it (see the insert trigger), so that the two never stand side by side.
create unique index client_provisioning_jobs_one_live
on public.client_provisioning_jobs (client_id, workflow)
with (fillfactor = 50)
where status in ('queued', 'running', 'waiting');

-- A job gets a new entry in this index whenever its status changes, at a random place. In a tree
-- that costs a search from the root, and sometimes a full page; in a hash index it is one page.
-- A client has few jobs: sorting them finds the newest.
create index client_provisioning_jobs_of_client
on public.client_provisioning_jobs using hash (client_id);

-- The three ways in which a job is due. Each index holds only the rows of its status,
-- so that a claim costs the same beside a million sleeping or finished jobs.
create index client_provisioning_jobs_queued
on public.client_provisioning_jobs (priority desc, created_at, id)
where status = 'queued';

create index client_provisioning_jobs_waiting
on public.client_provisioning_jobs (run_at)
where status = 'waiting';

create index client_provisioning_jobs_running
on public.client_provisioning_jobs (lease_expires_at)
where status = 'running';

-- Jobs whose holders fell silent twice in the present phase; they are claimed alone (see due_jobs).
-- Mostly empty.
create index client_provisioning_jobs_suspect
on public.client_provisioning_jobs (run_at)
where crashes > 1 and status in ('queued', 'waiting');

-- Looked up by client when a new job supersedes the failed one. Lists for people sort the failed
-- jobs, which are few enough.
create index client_provisioning_jobs_failed
on public.client_provisioning_jobs (client_id, workflow)
where status = 'failed';

-- On a platform that is itself a Supabase project, the roles of its Data API get privileges on
-- new public tables by default, and row level security doesn't stop TRUNCATE. anon and
-- authenticated lose those privileges; service_role may enqueue by plain SQL.
do $$
begin
    if exists (select 1 from pg_catalog.pg_roles where rolname = 'anon') then
        revoke all on public.client_provisioning_jobs from anon;
    end if;

    if exists (select 1 from pg_catalog.pg_roles where rolname = 'authenticated') then
        revoke all on public.client_provisioning_jobs from authenticated;
    end if;

    if exists (select 1 from pg_catalog.pg_roles where rolname = 'service_role') then
        grant select, insert, update on public.client_provisioning_jobs to service_role;
    end if;
end
$$;

-- The audit trail: every transition, in the transaction that makes it. Never changed.
create table pgworker.event_log (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    event text not null,
    actor text not null,
    client_id uuid,
    job_id bigint,
    workflow text,
    claim_token bigint,
    from_status text,
    to_status text,
    from_phase text,
    to_phase text,
    error_kind text,
    error text,
    detail jsonb
);

alter table pgworker.event_log enable row level security;

create index event_log_of_client
on pgworker.event_log (client_id, id);

-- phase_latency reads the phases that ended in the last day.
create index event_log_of_ended_phases
on pgworker.event_log (at)
where event in ('advanced', 'succeeded');

-- The phases of each workflow: the status that a client shows while in them, and their order.
-- Workers register the phases that users add; a null client_status leaves the client's alone. Of
-- one that may cost money a person is asked before it is run again.
create table pgworker.phases (
    workflow text not null,
    job_type text not null,
    client_status text,
    ordinal integer not null,
    may_cost_money boolean not null default false,
    primary key (workflow, job_type)
);

alter table pgworker.phases enable row level security;

insert into pgworker.phases (workflow, job_type, client_status, ordinal, may_cost_money)
values
('provision', 'create_project', 'creating_project', 1, true),
('provision', 'await_project', 'waiting_for_project', 2, false),
('provision', 'schema_sync', 'schema_syncing', 3, false),
('provision', 'smoke_checks', 'smoke_checking', 4, false);

create table pgworker.workers (
    id text primary key,
    hostname text not null,
    pid integer not null,
    version text not null,
    concurrency integer not null,
    lease interval not null,
    state text not null default 'running' check (state in ('running', 'stopped')),
    started_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    -- How many jobs it held when it fell silent (note_silent_workers); null while it hasn't.
    jobs_when_silent bigint
);

alter table pgworker.workers enable row level security;

create table pgworker.pauses (
    scope text primary key,
    paused_at timestamptz not null default now(),
    paused_by text not null
);

alter table pgworker.pauses enable row level security;
