"""Which migrations may be copied from a template, and which must run in each tenant itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgworker.providers.postgres.portable import created_extensions, is_portable, portable_part
from pgworker.schema.migrations import CanonicalSet, parse_migration
from tests.support.stack import CANONICAL


@pytest.mark.parametrize(
    "sql",
    [
        "create table t (id uuid default gen_random_uuid(), at timestamptz default now())",
        "create table t (id bigint generated always as identity, who text default current_user)",
        "create table p partition of t for values from ('2026-01-01') to ('2026-02-01')",
        "alter table t add column at timestamptz not null default now()",
        "alter table t enable row level security",
        "create index concurrently if not exists i on t (a)",
        "create policy p on t to anon using (owner = current_user and at > current_date)",
        "create view v with (security_invoker) as select now(), current_database()",
        "create function f() returns text language sql security definer return current_user",
        "create trigger g before update on t for each row execute function f()",
        "create type e as enum ('a', 'b')",
        "create domain d as text check (value <> '')",
        "create sequence s start 10",
        "create schema if not exists private",
        "create extension if not exists citext with schema public",
        "grant select on t to anon; revoke execute on function f() from public",
        "comment on table t is 'now it has a comment'",
        "drop table if exists t",
        "alter table t rename column a to b",
        "set check_function_bodies = off",
        "select pg_catalog.set_config('search_path', '', false)",
        "create statistics st on a, b from t",
    ],
)
def test_statements_that_only_change_the_schema_may_be_copied(sql: str) -> None:
    assert is_portable(parse_migration("1_a.sql", sql))


@pytest.mark.parametrize(
    "sql",
    [
        # data: its times and random values must be the tenant's own
        "insert into settings values ('key', gen_random_uuid(), now())",
        "update t set a = 1",
        "delete from t",
        "truncate t",
        "create table t as select now() as at",
        "select now() as at into t",
        "create materialized view v as select now()",
        "select setval('s', 42)",
        "with a as (select 1) select set_config('search_path', '', false) from a",
        # code that may do anything
        "do $$ begin execute 'create table t' || to_char(now(), 'YYYY') || ' (a int)'; end $$",
        "call p()",
        "select cron.schedule('job', '* * * * *', 'select 1')",
        # read as today's date when the statement runs
        "create table t (at date default 'today')",
        "create view v as select timestamptz ' NOW'",
        "create table p partition of t for values from (now()) to ('2030-01-01')",
        "create table p partition of t for values in (current_date)",
        # the role that runs it
        "grant select on t to current_user",
        "create policy p on t to session_user using (true)",
        "create schema s authorization current_role",
        "set role anon",
        "set session authorization anon",
        "select set_config('role', 'anon', false)",
        "alter table t owner to anon",
        "alter schema public owner to anon",
        # roles, the database, and what belongs to the whole server
        "create role r",
        "grant r to s",
        "alter role r set search_path = ''",
        "alter database d set search_path = ''",
        "comment on database d is 'it'",
        "grant connect on database d to anon",
        "comment on role r is 'it'",
        "create subscription s connection '' publication p",
        "security label on table t is 'secret'",
        # not reassigned with its owner, or not known to be
        "alter default privileges in schema public grant select on tables to anon",
        "create publication p for table t",
        "create event trigger e on ddl_command_end execute function f()",
        "create server s foreign data wrapper w",
        "create user mapping for anon server s",
        "reassign owned by a to b",
        "create something that no grammar knows",
        # one such statement is enough
        "create table t (a int); insert into t values (1)",
    ],
)
def test_a_statement_whose_result_may_differ_runs_in_each_tenant(sql: str) -> None:
    assert not is_portable(parse_migration("1_a.sql", sql))


def test_a_set_is_copied_up_to_the_first_file_that_must_run_in_the_tenant() -> None:
    texts = ["create table a (b int)", "create table c (d int)", "insert into a values (1)"]
    migrations = tuple(
        parse_migration(f"{number}_x.sql", text) for number, text in enumerate([*texts, texts[0]])
    )

    part = portable_part(CanonicalSet(Path(), migrations))

    assert part == migrations[:2]


def test_the_shipped_set_is_copied_except_for_its_seed() -> None:
    from pgworker.schema.directory import read_canonical_set

    canonical = read_canonical_set(CANONICAL)

    assert portable_part(canonical) == canonical.migrations[:-1]
    assert canonical.migrations[-1].name == "default_settings"


def test_the_extensions_of_a_set_are_found_by_name() -> None:
    migrations = (
        parse_migration("1_a.sql", 'create extension citext; create extension "uuid-ossp"'),
        parse_migration("2_b.sql", "create extension if not exists citext; create table t (a int)"),
    )

    assert created_extensions(migrations) == ("citext", "uuid-ossp")
