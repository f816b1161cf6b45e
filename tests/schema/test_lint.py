"""Promises of `schema lint`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pgworker.schema.lint import Violation, lint
from pgworker.schema.lint_rules import SEVERITIES, Severity
from pgworker.schema.migrations import CanonicalSet, parse_migration

SAFE = "alter table public.old enable row level security; grant select on public.old to anon;"
OLD = f"create table public.old (id int primary key, a int, b text); {SAFE}"


def violations(*files: str) -> tuple[Violation, ...]:
    migrations = tuple(
        parse_migration(f"{number}_x.sql", text) for number, text in enumerate(files, start=1)
    )
    return lint(CanonicalSet(Path("migrations"), migrations))


def rules(*files: str) -> list[str]:
    return [violation.rule for violation in violations(*files)]


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("drop table old", "drop-table"),
        ("drop table if exists public.old, public.other cascade", "drop-table"),
        ("alter table old drop column a", "drop-column"),
        ("drop schema app", "drop-schema"),
        ("truncate old", "truncate"),
        ("delete from old", "delete-without-where"),
        ("update old set a = 1", "update-without-where"),
        ("alter table old alter column a type bigint", "alter-column-type"),
        ("alter table old rename to older", "rename"),
        ("alter table old rename column a to c", "rename"),
        ("create index i on old (a)", "index-not-concurrent"),
        ("drop index i", "index-not-concurrent"),
        ("create index concurrently i on old (a)", "not-idempotent"),
        ("drop index concurrently i", "not-idempotent"),
        (
            "alter table old add column c uuid default gen_random_uuid()",
            ADD := ("add-column-volatile-default"),
        ),
        ("alter table old add column c bigserial", ADD),
        ("alter table old add column c int generated always as identity", ADD),
        ("alter table old add column c int generated always as (a + 1) stored", ADD),
        ("alter table old alter column a set not null", "set-not-null"),
        ("alter table old add foreign key (a) references old", "constraint-not-valid"),
        ("alter table old add constraint k check (a > 0)", "constraint-not-valid"),
        ("alter table old add unique (a)", "constraint-without-index"),
        ("alter table old add column c int unique", "constraint-without-index"),
        ("vacuum full old", "vacuum-full"),
        ("cluster old using i", "cluster"),
        ("reindex table old", "reindex"),
        ("refresh materialized view m", "refresh-not-concurrent"),
        ("alter table old disable row level security", "disable-row-level-security"),
        (
            "create function f() returns int language sql security definer return 1",
            "security-definer-search-path",
        ),
        ("alter function f() security definer", "security-definer-search-path"),
        ("alter type e add value 'x'; select 1", "enum-value-not-alone"),
        ("create sparkling table t (a int)", "unparsable"),
    ],
)
def test_a_dangerous_statement_is_found(sql: str, rule: str) -> None:
    assert rule in rules(OLD, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "delete from old where a = 1",
        "update old set a = 1 where a is null",
        "create index concurrently if not exists i on old (a)",
        "drop index concurrently if exists i",
        "alter table old add column c int default 1",
        "alter table old add column c timestamptz not null default now()",
        "alter table old add foreign key (a) references old not valid",
        "alter table old validate constraint k",
        "alter table old add constraint k unique using index i",
        "reindex table concurrently old",
        "refresh materialized view concurrently m",
        "vacuum old",
        "alter type e add value 'x'",
        "create temp table t as select 1; delete from pg_temp.t where true; drop view v;",
        (
            "create function f() returns int language sql security definer"
            " set search_path = '' return 1"
        ),
        "create function f() returns int language sql security invoker return 1",
        "select 'drop table old'",
    ],
)
def test_a_harmless_statement_is_left_alone(sql: str) -> None:
    assert rules(OLD, sql) == []


def test_a_table_of_the_same_file_is_empty_and_may_be_locked() -> None:
    assert (
        rules(
            f"{OLD} create index i on old (a); alter table old add unique (a);"
            "alter table old alter a set not null; update old set a = 1; truncate old;"
        )
        == []
    )


def test_a_violation_names_file_line_rule_and_table() -> None:
    (violation,) = violations(OLD, "select 1;\n\n-- unused\ndrop table old;")

    assert (violation.file, violation.line, violation.rule) == ("2_x.sql", 4, "drop-table")
    assert violation.severity is Severity.ERROR
    assert "public.old" in violation.message


def test_a_public_table_needs_row_level_security_and_a_grant() -> None:
    assert rules("create table t ()") == ["no-grant", "no-row-level-security"]
    assert rules("create table app.t ()") == []
    assert rules("create temp table t ()") == []
    assert rules("create table t as select 1") == ["no-grant", "no-row-level-security"]


@pytest.mark.parametrize(
    "grant",
    [
        "grant select on t to anon",
        "grant all on table public.t to service_role",
        "grant select on all tables in schema public to authenticated",
    ],
)
def test_security_and_grant_may_follow_in_a_later_file(grant: str) -> None:
    assert rules("create table t ()", f"alter table t enable row level security; {grant}") == []


def test_a_grant_on_all_tables_does_not_reach_a_later_one() -> None:
    secure = "create table t (); alter table t enable row level security"
    everything = "grant select on all tables in schema public to anon"

    assert rules(f"{everything}; {secure}") == ["no-grant"]


def test_default_privileges_reach_later_tables_only() -> None:
    secure = "create table t (); alter table t enable row level security"
    defaults = "alter default privileges in schema public grant select on tables to anon"

    assert rules(f"{defaults}; {secure}") == []
    assert rules(f"{secure}; {defaults}") == ["no-grant"]


def test_a_grant_to_another_role_does_not_count() -> None:
    secure = "create table t (); alter table t enable row level security"

    assert rules(f"{secure}; grant select on t to reporting") == ["no-grant"]


def test_a_table_that_is_dropped_or_moved_needs_neither() -> None:
    assert rules("create table t (); drop table t") == []
    assert rules("create table t (); alter table t set schema app") == []


def test_a_renamed_table_is_followed() -> None:
    assert (
        rules(
            "create table t (); alter table t rename to u; alter table u enable row level"
            " security; grant select on u to anon"
        )
        == []
    )


@pytest.mark.parametrize(
    "sql",
    [
        "-- pgworker:ignore drop-table\ndrop table old;",
        "drop table old; -- pgworker:ignore drop-table",
        "drop table /* pgworker:ignore truncate, drop-table */ old;",
        "select 1;\n-- pgworker:ignore drop-table\ndrop table old",
    ],
)
def test_a_comment_silences_a_rule_for_its_statement(sql: str) -> None:
    assert rules(OLD, sql) == []


@pytest.mark.parametrize(
    "sql",
    [
        "-- pgworker:ignore truncate\ndrop table old;",
        "select '-- pgworker:ignore drop-table'; drop table old;",
        "select 1; -- pgworker:ignore drop-table\ndrop table old;",
        "-- pgworker:ignore drop-table\nselect 1; drop table old;",
    ],
)
def test_a_comment_silences_nothing_else(sql: str) -> None:
    assert rules(OLD, sql) == ["drop-table"]


def test_a_table_may_be_declared_private() -> None:
    assert rules("-- pgworker:ignore no-grant, no-row-level-security\ncreate table t ()") == []


def test_the_docs_list_every_rule_with_its_severity() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "schema-sync.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \| (error|warning) \|", docs, re.MULTILINE)

    in_docs = {rule: severity for names, severity in rows for rule in re.findall("`(.*?)`", names)}

    assert in_docs == SEVERITIES
