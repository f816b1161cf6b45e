-- What every tenant begins with: settings, the people who use it, whom they invited, what they did.
-- Works on Supabase and on a plain PostgreSQL alike: all it asks for are the roles anon,
-- authenticated and service_role. The policies know nothing of Supabase's schema `auth`; what a
-- signed-in user may see and do is for your own migrations to say.

-- app_settings: one value for each key. `is_public` ones are shown before sign-in.
create table public.app_settings (
    key text primary key,
    value jsonb not null,
    is_public boolean not null default false,
    updated_at timestamptz not null default now(),
    constraint app_settings_key_format check (key ~ '^[a-z][a-z0-9_.]*$')
);

-- members: the people of this tenant; `user_id` is theirs in whatever signs them in.
create table public.members (
    id uuid primary key default gen_random_uuid(),
    user_id uuid unique,
    email text not null,
    display_name text not null default '',
    role text not null default 'member',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint members_role check (role in ('owner', 'admin', 'member'))
);

create unique index members_email on public.members (lower(email));

-- invitations: a token is kept only as its SHA-256 digest.
create table public.invitations (
    id uuid primary key default gen_random_uuid(),
    email text not null,
    role text not null default 'member',
    token_digest bytea not null unique,
    invited_by uuid references public.members (id) on delete set null,
    expires_at timestamptz not null default now() + interval '7 days',
    accepted_at timestamptz,
    created_at timestamptz not null default now(),
    constraint invitations_role check (role in ('admin', 'member')),
    constraint invitations_token_digest check (octet_length(token_digest) = 32)
);

create index invitations_invited_by on public.invitations (invited_by);

-- audit_log: append-only; see the trigger in the next file.
create table public.audit_log (
    id bigint generated always as identity primary key,
    occurred_at timestamptz not null default now(),
    actor_id uuid references public.members (id) on delete set null,
    action text not null,
    details jsonb not null default '{}'
);

create index audit_log_actor_id on public.audit_log (actor_id);
