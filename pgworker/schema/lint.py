"""Warns of what a canonical migration may do to tenants that are in use. Pure.

Judges PostgreSQL's own syntax trees (libpg_query, through postgast). A comment silences a rule for
its statement: `-- pgworker:ignore drop-table, truncate`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pgworker.schema import lint_rules
from pgworker.schema.grammar import parse
from pgworker.schema.lint_exposure import ExposedTables, Origin
from pgworker.schema.lint_rules import SEVERITIES, Severity
from pgworker.schema.splitter import LineFinder, split_script, tokenize

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pgworker.schema.lint_rules import Hit, TableName
    from pgworker.schema.migrations import CanonicalSet, Migration
    from pgworker.schema.splitter import SqlStatement, Token

_IGNORE: Final = re.compile(r"pgworker:ignore\s+([a-z-]+(?:\s*,\s*[a-z-]+)*)")
_UNPARSABLE: Final = (
    "unparsable",
    "not understood by the grammar of PostgreSQL 18: check it by hand",
)


@dataclass(frozen=True, slots=True)
class Violation:
    """One remark about one statement; `rule` is the word that silences it."""

    file: str
    line: int
    rule: str
    severity: Severity
    message: str


def lint(canonical: CanonicalSet) -> tuple[Violation, ...]:
    """Judge the whole set; return the violations in the order of files and lines.

    A table that is created in the same file is empty: nothing that locks or drops it is reported.
    Row level security and grants may follow in a later file.
    """
    violations: list[Violation] = []
    exposed = ExposedTables()
    for migration in canonical.migrations:
        violations += _lint_file(migration, exposed)
    for origin, hit in exposed.judge():
        violations += _report(origin, [hit])
    return tuple(sorted(violations, key=lambda each: (each.file, each.line, each.rule)))


def _lint_file(migration: Migration, exposed: ExposedTables) -> Iterator[Violation]:
    ignored = _find_ignored_rules(migration.text)
    created: set[TableName] = set()
    context = lint_rules.Context(created, is_alone=len(migration.statements) == 1)
    for statement in migration.statements:
        silenced = ignored.get(statement.start, frozenset())
        origin = Origin(migration.file, statement.line, silenced)
        nodes = parse(statement.text)
        if nodes is None:
            yield from _report(origin, [_UNPARSABLE])
        for node in nodes or ():
            created |= lint_rules.find_created_tables(node)
            exposed.read(node, origin)
            yield from _report(origin, lint_rules.judge(node, context))


def _report(origin: Origin, hits: Iterable[Hit]) -> Iterator[Violation]:
    for rule, message in hits:
        if rule not in origin.silenced:
            yield Violation(origin.file, origin.line, rule, SEVERITIES[rule], message)


def _find_ignored_rules(text: str) -> dict[int, frozenset[str]]:
    """Return the silenced rules, by the start of the statement that they are silenced for."""
    statements = split_script(text)
    line_of = LineFinder(text)
    ignored: dict[int, frozenset[str]] = {}
    for token in tokenize(text):
        names = _read_ignored_names(token)
        statement = _find_commented(statements, token.start, line_of) if names else None
        if statement is not None:
            ignored[statement.start] = ignored.get(statement.start, frozenset()) | names
    return ignored


def _read_ignored_names(token: Token) -> frozenset[str]:
    match = _IGNORE.search(token.text) if token.kind == "comment" else None
    return frozenset() if match is None else frozenset(re.split(r"\s*,\s*", match[1]))


def _find_commented(
    statements: tuple[SqlStatement, ...], offset: int, line_of: LineFinder
) -> SqlStatement | None:
    """Return the statement that a comment at this offset is about."""
    for before, statement in zip((None, *statements), statements, strict=False):
        if statement.start <= offset <= statement.end:
            # `drop table a; -- …` is about the statement before it.
            is_behind = before is not None and line_of(before.end) == line_of(offset)
            is_inside = statement.first is not None and statement.first < offset
            return before if is_behind and not is_inside else statement
    return None
