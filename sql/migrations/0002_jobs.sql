-- One row carries one client's workflow from phase to phase. The state machine is
-- told in sql/README.md; a job changes only through the functions of schema pgworker.

create table public.client_provisioning_jobs (
    id bigint generated always as identity primary key,
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
    constraint client_provisioning_jobs_status check (
        status in ('queued', 'running', 'waiting', 'failed', 'succeeded', 'cancelled')
    ),
    constraint client_provisioning_jobs_error_kind check (
        error_kind in ('transient', 'throttled', 'quota', 'auth', 'permanent', 'unknown')
    ),
    constraint client_provisioning_jobs_counts check (
        attempts >= 0 and max_attempts > 0 and crashes >= 0
    )
);

comment on table public.client_provisioning_jobs is
'One row carries one client''s workflow from phase to phase (pgworker).';

comment on column public.client_provisioning_jobs.waiting_for is
'What a waiting job waits for, in words for a person.';

alter table public.client_provisioning_jobs enable row level security;

-- At most one live job per client and workflow. A failed one is no longer live: a new
-- job supersedes it (see the insert trigger), so that the two never stand side by side.
create unique index client_provisioning_jobs_one_live
on public.client_provisioning_jobs (client_id, workflow)
where status in ('queued', 'running', 'waiting');

create index client_provisioning_jobs_of_client
on public.client_provisioning_jobs (client_id, id);

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

create index client_provisioning_jobs_failed
on public.client_provisioning_jobs (finished_at desc)
where status = 'failed';

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

-- The phases of each workflow: the status a client shows while in them, and their order.
-- Workers register those that users add; null leaves the client's status alone.
create table pgworker.phases (
    workflow text not null,
    job_type text not null,
    client_status text,
    ordinal integer not null,
    primary key (workflow, job_type)
);

alter table pgworker.phases enable row level security;

insert into pgworker.phases (workflow, job_type, client_status, ordinal)
values
('provision', 'create_project', 'creating_project', 1),
('provision', 'await_project', 'waiting_for_project', 2),
('provision', 'schema_sync', 'schema_syncing', 3),
('provision', 'smoke_checks', 'smoke_checking', 4);

create table pgworker.workers (
    id text primary key,
    hostname text not null,
    pid integer not null,
    version text not null,
    concurrency integer not null,
    lease interval not null,
    state text not null default 'running' check (state in ('running', 'draining', 'stopped')),
    started_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now()
);

alter table pgworker.workers enable row level security;

create table pgworker.pauses (
    scope text primary key,
    paused_at timestamptz not null default now(),
    paused_by text not null
);

alter table pgworker.pauses enable row level security;

-- phase_latency reads the phases that ended in the last day.
create index event_log_of_ended_phases
on pgworker.event_log (at)
where event in ('advanced', 'succeeded');
