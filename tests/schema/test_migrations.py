"""Promises of pgworker.schema.migrations, splitting and classifying."""

from __future__ import annotations

from typing import TYPE_CHECKING

import postgast
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgworker.errors import MigrationRefused
from pgworker.schema.migrations import (
    AppliedMigration,
    CanonicalSet,
    history_is_complete,
    parse_migration,
    plan,
)
from pgworker.schema.splitter import normal_form, split, tokenize

if TYPE_CHECKING:
    from pathlib import Path

# -- splitting --------------------------------------------------------------------------------


def texts(sql: str) -> list[str]:
    return [piece.text for piece in split(sql) if piece.first is not None]


@pytest.mark.parametrize(
    "statement",
    [
        "select ';'",
        "select 'it''s;'",
        r"select E'a\';b'",
        "select E'a'\n  'b\\';c'",
        r"select 'ends in \'",
        'select 1 as "a;""b"',
        "select $$ ; $$",
        "select $tag$ ; $$ ; $tag$",
        "select $ä$;$ä$",
        "select a$b from c$d",
        "select 1 -- a; comment\n + 2",
        "select 1 /* a; /* nested; */ still; */ + 2",
        "create rule r as on insert to t do also (select 1; select 2)",
        "create function f() returns int begin atomic select 1; select 2; end",
        (
            "create function f(x int) returns int begin atomic "
            "select case when x = 1 then case x when 1 then 2 end end; select 3; end"
        ),
        "create or replace procedure p() begin atomic select new.end as case; end",
        "select name'x;' from t",
        "do $$ begin if true then null; end if; end $$",
        "select U&'d\\0061t;a'",
        "select case when true then 1 end",
    ],
)
def test_a_semicolon_inside_of_a_statement_does_not_end_it(statement: str) -> None:
    assert texts(f"select 0;{statement};select 9") == ["select 0", statement, "select 9"]


def test_comments_stay_in_the_piece_they_stand_in() -> None:
    pieces = split("-- one\nselect 1; -- behind\nselect 2; -- last\n")

    assert [piece.text for piece in pieces] == [
        "-- one\nselect 1",
        "-- behind\nselect 2",
        "-- last",
    ]
    assert [piece.line for piece in pieces] == [2, 3, 4]
    assert pieces[2].first is None


def test_empty_pieces_are_dropped() -> None:
    assert texts(";;select 1;;\n;") == ["select 1"]


@pytest.mark.parametrize("text", ["select 'open;", "select $a$open;", "/* open;", 'select "open;'])
def test_what_is_never_closed_runs_to_the_end(text: str) -> None:
    assert [piece.text for piece in split(text)] == [text]


@given(st.text(alphabet="ab1eE'\"$;()-/*\\\n .é"))
def test_tokens_joined_are_the_text_again(text: str) -> None:
    assert "".join(token.text for token in tokenize(text)) == text


@given(st.text(alphabet="ab1eE'\"$;()-/*\\\n .é"))
def test_pieces_leave_out_only_white_space_and_separators(text: str) -> None:
    position = 0
    for piece in split(text):
        assert not text[position : piece.start].strip(" \n;")
        assert text[piece.start : piece.end].strip(" \n") == piece.text
        position = piece.end
    assert not text[position:].strip(" \n;")


FRAGMENTS = st.sampled_from(
    [
        "select 1",
        "select ';'",
        "select 'é;' as \"ü;\"",
        r"select E'\';'",
        "select $$;$$",
        "select $b$ $$;$$ $b$",
        "create table t (a int default (1))",
        (
            "create function f() returns int language sql begin atomic select case when true then 1"
            " else 2 end; select 2; end"
        ),
        "create rule r as on delete to t do instead (select 1; select 2)",
        "do $do$ begin perform 1; end $do$",
    ]
)
GAPS = st.sampled_from(["", " ", "\n", "\n-- a;b\n", "/* ; /* ; */ */", "\t\r\n"])


@settings(deadline=None)
@given(st.lists(st.tuples(GAPS, FRAGMENTS, GAPS), max_size=6))
def test_valid_sql_is_split_as_postgresql_splits_it(parts: list[tuple[str, str, str]]) -> None:
    text = ";".join("".join(part) for part in parts)

    theirs = [normal_form(statement) for statement in postgast.split(text)]

    assert [normal_form(piece) for piece in texts(text)] == theirs


@settings(deadline=None)
@given(st.lists(st.tuples(GAPS, FRAGMENTS), min_size=1, max_size=6))
def test_a_statement_stands_on_the_line_of_its_first_token(parts: list[tuple[str, str]]) -> None:
    text = ";".join(gap + fragment for gap, fragment in parts)
    lines, before = [], ""
    for gap, fragment in parts:
        lines.append((before + gap).count("\n") + 1)
        before += gap + fragment + ";"

    assert [piece.line for piece in split(text) if piece.first is not None] == lines


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
def test_what_runs_outside_of_a_transaction_is_recognised(sql: str, transactional: bool) -> None:
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


def test_only_what_the_tenant_lacks_is_planned(tmp_path: Path) -> None:
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


def test_what_is_recorded_of_a_file_is_no_change_of_it(tmp_path: Path) -> None:
    text = "-- a\nselect 1; /* b */\nselect $$ ; $$;\n-- c"
    canonical = canonical_of(tmp_path, v1=text)

    assert plan(canonical, [row("1", *canonical.migrations[0].recorded_statements)]) == ()
