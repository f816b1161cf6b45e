"""SQL files are split as Supabase's CLI splits them, and as PostgreSQL reads them."""

from __future__ import annotations

import postgast
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgworker.schema.splitter import find_statements, normal_form, split_script, tokenize


def texts(sql: str) -> list[str]:
    return [statement.text for statement in find_statements(sql)]


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


def test_a_comment_stays_in_the_statement_that_it_stands_in() -> None:
    statements = split_script("-- one\nselect 1; -- behind\nselect 2; -- last\n")

    assert [statement.text for statement in statements] == [
        "-- one\nselect 1",
        "-- behind\nselect 2",
        "-- last",
    ]
    assert [statement.line for statement in statements] == [2, 3, 4]
    assert [statement.is_comment for statement in statements] == [False, False, True]


def test_empty_statements_are_dropped() -> None:
    assert texts(";;select 1;;\n;") == ["select 1"]


@pytest.mark.parametrize("text", ["select 'open;", "select $a$open;", "/* open;", 'select "open;'])
def test_an_unclosed_quote_or_comment_runs_to_the_end(text: str) -> None:
    assert [statement.text for statement in split_script(text)] == [text]


@given(st.text(alphabet="ab1eE'\"$;()-/*\\\n .é"))
def test_tokens_joined_are_the_text_again(text: str) -> None:
    assert "".join(token.text for token in tokenize(text)) == text


@given(st.text(alphabet="ab1eE'\"$;()-/*\\\n .é"))
def test_statements_leave_out_only_white_space_and_separators(text: str) -> None:
    position = 0
    for statement in split_script(text):
        assert not text[position : statement.start].strip(" \n;")
        assert text[statement.start : statement.end].strip(" \n") == statement.text
        position = statement.end
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

    assert [normal_form(statement) for statement in texts(text)] == theirs


@settings(deadline=None)
@given(st.lists(st.tuples(GAPS, FRAGMENTS), min_size=1, max_size=6))
def test_a_statement_stands_on_the_line_of_its_first_token(parts: list[tuple[str, str]]) -> None:
    text = ";".join(gap + fragment for gap, fragment in parts)
    lines, before = [], ""
    for gap, fragment in parts:
        lines.append((before + gap).count("\n") + 1)
        before += gap + fragment + ";"

    assert [statement.line for statement in find_statements(text)] == lines
