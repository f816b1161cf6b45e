"""The rules of `schema lint` about tables of schema `public`, which the Data API shows. Pure.

Row level security and grants may come in a later file than the table, so these rules follow each
table through the whole set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import postgast

from pgworker.schema.lint_rules import (
    Hit,
    TableName,
    find_created_tables,
    is_public,
    list_dropped_tables,
    read_table_name,
)

_GRAMMAR: Final = postgast.pg_query_pb2
# The roles of the Data API, and `public`, which they all belong to.
_API_ROLES: Final = frozenset({"anon", "authenticated", "service_role", "public"})
_SWITCHES: Final = {
    _GRAMMAR.AT_EnableRowSecurity: True,
    _GRAMMAR.AT_DisableRowSecurity: False,
}


class Origin(NamedTuple):
    """The statement that created a table.

    Attributes:
        silenced: rules that a comment silences for it.
    """

    file: str
    line: int
    silenced: frozenset[str]


@dataclass(slots=True)
class _Table:
    origin: Origin
    is_granted: bool
    is_secured: bool = False


class ExposedTables:
    """The tables of schema `public`, as far as the set has been read."""

    def __init__(self) -> None:
        self._tables: dict[TableName, _Table] = {}
        self._is_granted_by_default = False

    def read(self, node: Any, origin: Origin) -> None:
        """Take in one statement."""
        for name in find_created_tables(node):
            if is_public(name):
                # Default privileges reach only the tables that are created after them.
                self._tables[name] = _Table(origin, is_granted=self._is_granted_by_default)
        reader = _READERS.get(type(node).__name__)
        if reader is not None:
            reader(self, node)

    def judge(self) -> Iterator[tuple[Origin, Hit]]:
        """Yield the rules that tables break after the last file."""
        for (schema, name), table in self._tables.items():
            if not table.is_secured:
                message = (
                    f"{schema}.{name} has no row level security: add "
                    f"alter table {schema}.{name} enable row level security"
                )
                yield table.origin, ("no-row-level-security", message)
            if not table.is_granted:
                message = (
                    f"{schema}.{name} is granted to none of anon, authenticated, service_role: "
                    "the Data API answers 42501 for it"
                )
                yield table.origin, ("no-grant", message)

    def _read_alter_table(self, node: Any) -> None:
        table = self._tables.get(read_table_name(node.relation))
        if table is None:
            return
        for command in node.cmds:
            subtype = command.alter_table_cmd.subtype
            table.is_secured = _SWITCHES.get(subtype, table.is_secured)

    def _read_grant(self, node: Any) -> None:
        if not _is_grant_to_api(node):
            return
        # A grant on all tables reaches those that exist by then, and no later one.
        if node.targtype == _GRAMMAR.ACL_TARGET_ALL_IN_SCHEMA:
            if any(schema.string.sval == "public" for schema in node.objects):
                self._grant(self._tables)
        else:
            self._grant(
                read_table_name(item.range_var)
                for item in node.objects
                if item.WhichOneof("node") == "range_var"
            )

    def _grant(self, names: Iterable[TableName]) -> None:
        for name in names:
            if name in self._tables:
                self._tables[name].is_granted = True

    def _read_default_privileges(self, node: Any) -> None:
        if _is_grant_to_api(node.action):
            self._is_granted_by_default = True

    def _read_drop(self, node: Any) -> None:
        for name in list_dropped_tables(node):
            self._tables.pop(name, None)

    def _read_rename(self, node: Any) -> None:
        if node.rename_type == _GRAMMAR.OBJECT_TABLE:
            self._move(node.relation, (read_table_name(node.relation)[0], node.newname))

    def _read_set_schema(self, node: Any) -> None:
        if node.HasField("relation"):
            self._move(node.relation, (node.newschema, node.relation.relname))

    def _move(self, relation: Any, to: TableName) -> None:
        table = self._tables.pop(read_table_name(relation), None)
        if table is not None and is_public(to):
            self._tables[to] = table


def _is_grant_to_api(node: Any) -> bool:
    if not node.is_grant or node.objtype != _GRAMMAR.OBJECT_TABLE:
        return False
    return any(
        grantee.role_spec.rolename in _API_ROLES
        or grantee.role_spec.roletype == _GRAMMAR.ROLESPEC_PUBLIC
        for grantee in node.grantees
    )


# By the type of the statement's node.
_READERS: Final[dict[str, Callable[[ExposedTables, Any], None]]] = {
    "AlterDefaultPrivilegesStmt": ExposedTables._read_default_privileges,
    "AlterObjectSchemaStmt": ExposedTables._read_set_schema,
    "AlterTableStmt": ExposedTables._read_alter_table,
    "DropStmt": ExposedTables._read_drop,
    "GrantStmt": ExposedTables._read_grant,
    "RenameStmt": ExposedTables._read_rename,
}
