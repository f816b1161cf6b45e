"""Warns of what a canonical migration may do to tenants that are in use. Pure.

Judges PostgreSQL's own syntax trees (libpg_query, through postgast). A comment silences a rule for
its statement: `-- pgworker:ignore drop-table, truncate`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import postgast

from pgworker.schema import lint_rules
from pgworker.schema.grammar import parse
from pgworker.schema.lint_rules import TableName, is_public, table_name
from pgworker.schema.splitter import LineFinder, split_script, tokenize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgworker.schema.migrations import CanonicalSet, Migration
    from pgworker.schema.splitter import SqlStatement

_IGNORE = re.compile(r"pgworker:ignore\s+([a-z-]+(?:\s*,\s*[a-z-]+)*)")
_API_ROLES = frozenset({"anon", "authenticated", "service_role", "public"})
_GRAMMAR = postgast.pg_query_pb2


class Severity(StrEnum):
    """How much a violation matters."""

    ERROR = "error"  # it loses data, stops the tenant's application or opens it to strangers
    WARNING = "warning"  # it may, depending on what the tenant holds


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
    exposed = _ExposedTables()
    for migration in canonical.migrations:
        violations += _lint_file(migration, exposed)
    violations += exposed.violations()
    return tuple(
        sorted(violations, key=lambda violation: (violation.file, violation.line, violation.rule))
    )


def _lint_file(migration: Migration, exposed: _ExposedTables) -> Iterator[Violation]:
    ignored = _ignored_rules(migration.text)
    created: set[TableName] = set()
    for statement in migration.statements:
        silenced = ignored.get(statement.start, frozenset())
        nodes = parse(statement.text)
        if nodes is None:
            if "unparsable" not in silenced:
                yield Violation(
                    migration.file,
                    statement.line,
                    "unparsable",
                    Severity.ERROR,
                    "not understood by the grammar of PostgreSQL 18: check it by hand",
                )
            continue
        for node in nodes:
            created |= lint_rules.created_tables(node)
            exposed.take(node, migration.file, statement.line, silenced)
            context = lint_rules.Context(created=created, is_alone=len(migration.statements) == 1)
            for rule, severity, message in lint_rules.judge(node, context):
                if rule not in silenced:
                    yield Violation(
                        migration.file, statement.line, rule, Severity(severity), message
                    )


def _ignored_rules(text: str) -> dict[int, frozenset[str]]:
    """Return the silenced rules by the start of the statement that they are silenced for."""
    statements = split_script(text)
    line_of = LineFinder(text)
    rules: dict[int, frozenset[str]] = {}
    for token in tokenize(text):
        match = _IGNORE.search(token.text) if token.kind == "comment" else None
        if match is None:
            continue
        statement = _find_commented(statements, token.start, line_of)
        if statement is not None:
            names = frozenset(re.split(r"\s*,\s*", match[1]))
            rules[statement.start] = rules.get(statement.start, frozenset()) | names
    return rules


def _find_commented(
    statements: tuple[SqlStatement, ...], offset: int, line_of: LineFinder
) -> SqlStatement | None:
    """Return the statement that a comment at this offset speaks of."""
    for before, statement in zip((None, *statements), statements, strict=False):
        if statement.start <= offset <= statement.end:
            # `drop table a; -- …` speaks of the statement it stands behind.
            is_behind = before is not None and line_of(before.end) == line_of(offset)
            is_inside = statement.first is not None and statement.first < offset
            return before if is_behind and not is_inside else statement
    return None


@dataclass(slots=True)
class _Exposed:
    """A table in schema `public`: what is still missing, and where it was created."""

    file: str
    line: int
    silenced: frozenset[str]
    is_secured: bool = False
    is_granted: bool = False


@dataclass(slots=True)
class _ExposedTables:
    """Follows the tables of schema `public` through the whole set."""

    tables: dict[TableName, _Exposed] = field(default_factory=dict)
    granted_by_default: bool = False

    def take(self, node: Any, file: str, line: int, silenced: frozenset[str]) -> None:
        for name in lint_rules.created_tables(node):
            if is_public(name):
                self.tables[name] = _Exposed(
                    file, line, silenced, is_granted=self.granted_by_default
                )
        match type(node).__name__:
            case "AlterTableStmt":
                self._take_alter(node)
            case "GrantStmt" if _is_grant_to_api(node):
                self._take_grant(node)
            case "AlterDefaultPrivilegesStmt" if _is_grant_to_api(node.action):
                self.granted_by_default |= node.action.objtype == _GRAMMAR.OBJECT_TABLE
            case "DropStmt":
                for name in lint_rules.dropped_tables(node):
                    self.tables.pop(name, None)
            case "RenameStmt" if node.rename_type == _GRAMMAR.OBJECT_TABLE:
                self._move(node.relation, (table_name(node.relation)[0], node.newname))
            case "AlterObjectSchemaStmt" if node.HasField("relation"):
                self._move(node.relation, (node.newschema, node.relation.relname))
            case _:
                pass

    def _take_alter(self, node: Any) -> None:
        table = self.tables.get(table_name(node.relation))
        if table is None:
            return
        for command in node.cmds:
            if command.alter_table_cmd.subtype == _GRAMMAR.AT_EnableRowSecurity:
                table.is_secured = True
            elif command.alter_table_cmd.subtype == _GRAMMAR.AT_DisableRowSecurity:
                table.is_secured = False

    def _take_grant(self, node: Any) -> None:
        if node.targtype == _GRAMMAR.ACL_TARGET_ALL_IN_SCHEMA:
            if any(schema.string.sval == "public" for schema in node.objects):
                for table in self.tables.values():
                    table.is_granted = True
            return
        for item in node.objects:
            if item.WhichOneof("node") == "range_var":
                granted = self.tables.get(table_name(item.range_var))
                if granted is not None:
                    granted.is_granted = True

    def _move(self, relation: Any, to: TableName) -> None:
        table = self.tables.pop(table_name(relation), None)
        if table is not None and is_public(to):
            self.tables[to] = table

    def violations(self) -> Iterator[Violation]:
        for (schema, name), table in self.tables.items():
            if not table.is_secured and "no-row-level-security" not in table.silenced:
                yield Violation(
                    table.file,
                    table.line,
                    "no-row-level-security",
                    Severity.ERROR,
                    f"{schema}.{name} has no row level security: add "
                    f"alter table {schema}.{name} enable row level security",
                )
            if not table.is_granted and "no-grant" not in table.silenced:
                yield Violation(
                    table.file,
                    table.line,
                    "no-grant",
                    Severity.WARNING,
                    f"{schema}.{name} is granted to none of anon, authenticated, service_role: "
                    "the Data API answers 42501 for it",
                )


def _is_grant_to_api(node: Any) -> bool:
    if not node.is_grant or node.objtype != _GRAMMAR.OBJECT_TABLE:
        return False
    return any(
        grantee.role_spec.rolename in _API_ROLES
        or grantee.role_spec.roletype == _GRAMMAR.ROLESPEC_PUBLIC
        for grantee in node.grantees
    )
