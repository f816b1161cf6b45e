"""Which files can be used as migrations, and which of them a tenant lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgworker.errors import MigrationRefused
from pgworker.schema.migrations import (
    AppliedMigration,
    CanonicalSet,
    history_is_complete,
    parse_migration,
    plan,
)

if TYPE_CHECKING:
    from pathlib import Path

# -- parsing ----------------------------------------------------------------------------------


def test_a_newer_grammar_still_loads() -> None:
    migration = parse_migration("1_a.sql", "create sparkling table t (a int);\nselect 1;")

    assert migration.transactional
    assert [statement.line for statement in migration.statements] == [1, 2]


@pytest.mark.parametrize(
    ("sql", "transactional"),
    [
        ("create index concurrently i on t (a)", False),
        ("create index concurrently i on t (a) with sparkles everywhere", False),
        ("-- why\ndrop index concurrently if exists i; -- done\n", False),
        ("reindex (concurrently) index i", False),
        ("reindex table concurrently t", False),
        ("reindex database", False),
        ("reindex table t", True),
        ("vacuum full t", False),
        ("analyze t", True),
        ("cluster", False),
        ("cluster t using i", True),
        ("alter system set work_mem = 1", False),
        ("create subscription s connection '' publication p", False),
        ("alter table t detach partition p concurrently", False),
        ("refresh materialized view concurrently m", True),
        ("alter type e add value 'x'", True),
        ("select 'create index concurrently'", True),
        ("-- nothing but a comment", True),
    ],
)
def test_statements_that_must_run_alone_are_recognised(sql: str, transactional: bool) -> None:
    assert parse_migration("1_a.sql", sql).transactional is transactional


# -- comparing --------------------------------------------------------------------------------


def canonical_of(tmp_path: Path, **files: str) -> CanonicalSet:
    return CanonicalSet(
        tmp_path,
        tuple(
            parse_migration(f"{name.removeprefix('v')}_x.sql", sql) for name, sql in files.items()
        ),
    )


def row(version: str, *statements: str) -> AppliedMigration:
    return AppliedMigration(version, "x", statements or None)


def test_only_missing_files_are_planned(tmp_path: Path) -> None:
    canonical = canonical_of(tmp_path, v1="select 1;", v2="select 2;", v3="select 3;")

    planned = plan(canonical, [row("1", "select 1")])

    assert [migration.version for migration in planned] == ["2", "3"]
    assert not history_is_complete(canonical, [row("1")])
    assert history_is_complete(canonical, [row("1"), row("2"), row("3")])


def test_a_version_without_a_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(MigrationRefused, match=r"without a file in .*: 0, 7; add"):
        plan(canonical_of(tmp_path, v1="select 1"), [row("7"), row("1"), row("0")])


def test_an_older_file_is_refused_by_name_unless_all_are_included(tmp_path: Path) -> None:
    canonical = canonical_of(tmp_path, v1="select 1", v2="select 2", v3="select 3")
    history = [row("1"), row("3")]

    with pytest.raises(MigrationRefused, match=r"older than 3.*: 2_x\.sql; .*--include-all"):
        plan(canonical, history)

    assert [m.version for m in plan(canonical, history, include_all=True)] == ["2"]


def test_a_changed_file_is_refused_by_name(tmp_path: Path) -> None:
    canonical = canonical_of(tmp_path, v1="select 1", v2="select 2")

    with pytest.raises(MigrationRefused, match=r"changed after they had been applied: 1_x\.sql"):
        plan(canonical, [row("1", "select 7")])


@pytest.mark.parametrize(
    "recorded",
    [
        ("select 1", "select  2"),
        ("-- a comment\nselect 1", "select 2\n", "-- last"),
        ("select 1;\nselect 2;",),
        ("select 1 -- no end of line", "select 2"),
    ],
)
def test_white_space_comments_and_other_splitting_are_no_change(
    tmp_path: Path, recorded: tuple[str, ...]
) -> None:
    canonical = canonical_of(tmp_path, v1="-- a comment\r\nselect 1;\r\n\r\nselect 2;\r\n")

    assert plan(canonical, [row("1", *recorded)]) == ()


def test_white_space_in_a_literal_is_a_change(tmp_path: Path) -> None:
    canonical = canonical_of(tmp_path, v1="select 'a  b'")

    with pytest.raises(MigrationRefused, match="changed"):
        plan(canonical, [row("1", "select 'a b'")])


def test_a_row_without_statements_is_not_a_change(tmp_path: Path) -> None:
    assert plan(canonical_of(tmp_path, v1="select 1"), [row("1")]) == ()


def test_a_file_equals_what_is_recorded_of_it(tmp_path: Path) -> None:
    text = "-- a\nselect 1; /* b */\nselect $$ ; $$;\n-- c"
    canonical = canonical_of(tmp_path, v1=text)

    assert plan(canonical, [row("1", *canonical.migrations[0].recorded_statements)]) == ()
