"""How a statement that our grammar can't read may be run, by its first words."""

from __future__ import annotations

import pytest

from pgworker.schema.grammar import Kind, find_kind, parse
from pgworker.schema.splitter import find_statements


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("create sparkling table t (a int)", Kind.TRANSACTIONAL),
        ("create sparkling index i on t (a)", Kind.TRANSACTIONAL),
        ("create unique index concurrently i on t (a) with sparkles", Kind.ALONE),
        ("drop index concurrently i with sparkles", Kind.ALONE),
        ("create database d sparkle of sparkles", Kind.ALONE),
        ("drop subscription s with sparkles", Kind.ALONE),
        ("alter system sparkle", Kind.ALONE),
        ("discard all sparkles", Kind.ALONE),
        ("vacuum with sparkles", Kind.ALONE),
        ("cluster sparkles everywhere", Kind.TRANSACTIONAL),
        ("reindex sparkles s", Kind.ALONE),
        ("reindex index i with sparkles", Kind.TRANSACTIONAL),
        ("reindex index i with sparkles concurrently", Kind.ALONE),
        ("alter table t sparkle p concurrently", Kind.ALONE),
        ("alter table t sparkle concurrently p", Kind.TRANSACTIONAL),
        ("begin with sparkles", Kind.TRANSACTION_CONTROL),
        ("start transaction with sparkles", Kind.TRANSACTION_CONTROL),
        ("prepare transaction with sparkles", Kind.TRANSACTION_CONTROL),
        ("start sparkling", Kind.TRANSACTIONAL),
        ("copy t from stdin with sparkles everywhere", Kind.COPY_FROM_STDIN),
        ("copy t from sparkles", Kind.TRANSACTIONAL),
        ("1 sparkle", Kind.TRANSACTIONAL),
        ("?", Kind.TRANSACTIONAL),
    ],
)
def test_a_statement_of_a_newer_postgresql_is_run_as_its_first_words_say(
    sql: str, kind: Kind
) -> None:
    (statement,) = find_statements(sql)

    assert parse(sql) is None
    assert find_kind(statement) is kind
