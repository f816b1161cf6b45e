"""What PostgreSQL's grammar says about a statement, as far as applying it needs to know.

The grammar is PostgreSQL's own (libpg_query, through postgast). A statement that it can't parse may
be of a newer PostgreSQL: the tenant's server decides then, and we look at the first words only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import postgast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pgworker.schema.splitter import SqlStatement

    # Whether the server refuses a node of the grammar in a transaction block.
    IsAlone: TypeAlias = Callable[[Any], bool]


class Kind(Enum):
    """How a statement may be run; a later one is stricter."""

    TRANSACTIONAL = auto()
    ALONE = auto()  # the server refuses it in a transaction block (SQLSTATE 25001)
    TRANSACTION_CONTROL = auto()
    COPY_FROM_STDIN = auto()


@dataclass(frozen=True, slots=True)
class ConcurrentIndex:
    """What `create index concurrently` names.

    Attributes:
        name: of the index, not quoted; None leaves it to the server.
        table: quoted, with its schema if the statement names one.
        columns: of the index, not quoted; None for an expression.
    """

    name: str | None
    table: str
    columns: tuple[str | None, ...]

    def may_have_left(self, index_name: str, columns: Sequence[str]) -> bool:
        """Return whether an earlier run of the statement may have left that index.

        A name of the server's choice is `<table>_<columns>_idx`, with a number when it is taken
        (PostgreSQL's `ChooseIndexName`); the table's and the columns' names may be cut.
        """
        if self.name is not None:
            return index_name == self.name
        return (
            re.search(r"_idx\d*$", index_name) is not None
            and len(columns) == len(self.columns)
            and all(
                wanted in {None, found} for wanted, found in zip(self.columns, columns, strict=True)
            )
        )


def parse(sql: str) -> list[Any] | None:
    """Return the syntax trees of the statements in `sql`; None when our grammar can't read it."""
    try:
        statements = postgast.parse(sql).stmts
    except postgast.PgQueryError:
        return None
    return [postgast.unwrap_node(statement.stmt) for statement in statements]


def find_kind(statement: SqlStatement) -> Kind:
    """Return how a statement may be run."""
    nodes = parse(statement.text)
    if nodes is None:
        return _find_kind_by_words(statement.words)
    # More than one node: the grammar saw a separator that we didn't. The strictest counts.
    kinds = (_find_kind_of_node(node) for node in nodes)
    return max(kinds, key=lambda kind: kind.value, default=Kind.TRANSACTIONAL)


def read_concurrent_index(sql: str) -> ConcurrentIndex | None:
    """Return what the statement builds if it is a `create index concurrently`."""
    for node in parse(sql) or ():
        if type(node).__name__ == "IndexStmt" and node.concurrent:
            parts = filter(None, (node.relation.schemaname, node.relation.relname))
            elements = (*node.index_params, *node.index_including_params)
            return ConcurrentIndex(
                name=node.idxname or None,
                table=".".join(map(_quote_identifier, parts)),
                columns=tuple(each.index_elem.name or None for each in elements),
            )
    return None


def _quote_identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def is_setting(sql: str) -> bool:
    """Return whether the statement only changes a setting of the session (`set`, `reset`)."""
    nodes = parse(sql) or ()
    # Exactly one: a separator that only the grammar saw would hide a second statement.
    return [type(node).__name__ for node in nodes] == ["VariableSetStmt"]


def sets_characteristics(sql: str) -> bool:
    """Return whether it is a `set transaction`, which the server takes before a query only."""
    return any(
        type(node).__name__ == "VariableSetStmt" and node.name == "TRANSACTION"
        for node in parse(sql) or ()
    )


def is_concurrent_reindex(node: Any) -> bool:
    """Return whether a `ReindexStmt` says `concurrently` (also as an option in parentheses)."""
    return any(option.def_elem.defname == "concurrently" for option in node.params)


# -- by the grammar ---------------------------------------------------------------------------

_GRAMMAR: Final = postgast.pg_query_pb2
_WHOLE_DATABASE: Final = frozenset(
    {
        _GRAMMAR.REINDEX_OBJECT_SCHEMA,
        _GRAMMAR.REINDEX_OBJECT_SYSTEM,
        _GRAMMAR.REINDEX_OBJECT_DATABASE,
    }
)
# These ask the publisher, unless the option refresh = false spares that.
_ASKS_PUBLISHER: Final = frozenset(
    {
        _GRAMMAR.ALTER_SUBSCRIPTION_REFRESH,
        _GRAMMAR.ALTER_SUBSCRIPTION_SET_PUBLICATION,
        _GRAMMAR.ALTER_SUBSCRIPTION_ADD_PUBLICATION,
        _GRAMMAR.ALTER_SUBSCRIPTION_DROP_PUBLICATION,
    }
)


def _always(_node: Any) -> bool:
    return True


def _is_concurrent(node: Any) -> bool:
    return bool(node.concurrent)


def _is_detach_concurrently(item: Any) -> bool:
    command = item.alter_table_cmd
    if not command.HasField("def"):
        return False
    # `def` is a keyword of Python.
    definition = getattr(command, "def")
    is_partition = definition.WhichOneof("node") == "partition_cmd"
    return is_partition and bool(definition.partition_cmd.concurrent)


# By the type of the node; a type that isn't here may always run in a transaction block.
_IS_ALONE: Final[dict[str, IsAlone]] = {
    "AlterDatabaseStmt": lambda node: any(
        option.def_elem.defname == "tablespace" for option in node.options
    ),
    "AlterSubscriptionStmt": lambda node: node.kind in _ASKS_PUBLISHER,
    "AlterSystemStmt": _always,
    "AlterTableStmt": lambda node: any(_is_detach_concurrently(item) for item in node.cmds),
    "ClusterStmt": lambda node: not node.HasField("relation"),
    "CreateSubscriptionStmt": _always,
    "CreateTableSpaceStmt": _always,
    "CreatedbStmt": _always,
    "DiscardStmt": lambda node: bool(node.target == _GRAMMAR.DISCARD_ALL),
    "DropStmt": _is_concurrent,
    "DropSubscriptionStmt": _always,
    "DropTableSpaceStmt": _always,
    "DropdbStmt": _always,
    "IndexStmt": _is_concurrent,
    "ReindexStmt": lambda node: node.kind in _WHOLE_DATABASE or is_concurrent_reindex(node),
    "VacuumStmt": lambda node: bool(node.is_vacuumcmd),  # `analyze` is one, too
}


def _find_kind_of_node(node: Any) -> Kind:
    name = type(node).__name__
    if name == "TransactionStmt":
        return Kind.TRANSACTION_CONTROL
    if name == "CopyStmt" and node.is_from and not node.filename:
        return Kind.COPY_FROM_STDIN
    is_alone = _IS_ALONE.get(name)
    return Kind.ALONE if is_alone is not None and is_alone(node) else Kind.TRANSACTIONAL


# -- by the first words -----------------------------------------------------------------------

_Words: TypeAlias = tuple[str, ...]

_CONTROL_WORDS: Final = frozenset(
    {"abort", "begin", "commit", "end", "release", "rollback", "savepoint"}
)
_CONTROL_PAIRS: Final = frozenset({("start", "transaction"), ("prepare", "transaction")})
_ALONE_PAIRS: Final = frozenset(
    {
        ("alter", "system"),
        ("create", "database"),
        ("create", "subscription"),
        ("create", "tablespace"),
        ("discard", "all"),
        ("drop", "database"),
        ("drop", "subscription"),
        ("drop", "tablespace"),
    }
)


def _find_kind_by_words(words: _Words) -> Kind:
    if words[:1] and (words[0] in _CONTROL_WORDS or words[:2] in _CONTROL_PAIRS):
        return Kind.TRANSACTION_CONTROL
    if words[:1] == ("copy",) and {"from", "stdin"} <= {*words}:
        return Kind.COPY_FROM_STDIN
    return Kind.ALONE if _is_alone_by_words(words) else Kind.TRANSACTIONAL


def _is_alone_by_words(words: _Words) -> bool:
    match words:
        case (first, second, *_) if (first, second) in _ALONE_PAIRS:
            return True
        case ("vacuum", *_) | ("cluster",):
            return True
        case ("reindex", *rest):
            return "concurrently" in rest or rest[:1] != ["index"]
        case ("create" | "drop", *rest):
            return "index" in rest[:2] and "concurrently" in rest
        case ("alter", "table", *rest):
            return rest[-1:] == ["concurrently"]
        case _:
            return False
