"""What kind of statement this is, as far as applying it needs to know.

Asks PostgreSQL's own grammar (libpg_query, through postgast). A statement that it can't parse may
be of a newer PostgreSQL: the tenant's server decides then, and we look at the first words only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import postgast

if TYPE_CHECKING:
    from pgworker.schema.splitter import Piece


class Kind(Enum):
    """How a statement may be run."""

    TRANSACTIONAL = auto()
    ALONE = auto()  # the server refuses it in a transaction block (SQLSTATE 25001)
    TRANSACTION_CONTROL = auto()
    COPY_FROM_STDIN = auto()


@dataclass(frozen=True, slots=True)
class ConcurrentIndex:
    """What `create index concurrently` names.

    Attributes:
        name: of the index, not quoted.
        table: quoted, with its schema if the statement says one.
    """

    name: str
    table: str


# The grammar's node types that the server never runs in a transaction block, whatever they say.
_ALWAYS_ALONE = frozenset(
    {
        "AlterSystemStmt",
        "CreateSubscriptionStmt",
        "CreateTableSpaceStmt",
        "CreatedbStmt",
        "DropSubscriptionStmt",
        "DropTableSpaceStmt",
        "DropdbStmt",
    }
)
_CONTROL_WORDS = frozenset({"abort", "begin", "commit", "end", "release", "rollback", "savepoint"})
_ALONE_WORDS = frozenset(
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


def parse(sql: str) -> list[Any] | None:
    """Return the syntax trees of the statements in `sql`; None when our grammar can't read it."""
    try:
        statements = postgast.parse(sql).stmts
    except postgast.PgQueryError:
        return None
    return [postgast.unwrap_node(statement.stmt) for statement in statements]


def classify(piece: Piece) -> Kind:
    """Say how the piece may be run."""
    nodes = parse(piece.text)
    kinds = [_kind_by_words(piece.words)] if nodes is None else [_kind_of(node) for node in nodes]
    # More than one node: the grammar saw a separator that we didn't. The strictest counts.
    return max(kinds, key=lambda kind: kind.value, default=Kind.TRANSACTIONAL)


def concurrent_index(sql: str) -> ConcurrentIndex | None:
    """Return what the statement builds if it is a `create index concurrently` with a name."""
    for node in parse(sql) or ():
        if type(node).__name__ == "IndexStmt" and node.concurrent and node.idxname:
            parts = (node.relation.schemaname, node.relation.relname)
            table = ".".join('"' + part.replace('"', '""') + '"' for part in parts if part)
            return ConcurrentIndex(node.idxname, table)
    return None


def is_concurrent_reindex(node: Any) -> bool:
    """Tell `reindex … concurrently` (also as an option in parentheses) from the plain one."""
    return any(option.def_elem.defname == "concurrently" for option in node.params)


def _kind_of(node: Any) -> Kind:
    name = type(node).__name__
    if name == "TransactionStmt":
        return Kind.TRANSACTION_CONTROL
    if name == "CopyStmt" and node.is_from and not node.filename:
        return Kind.COPY_FROM_STDIN
    return Kind.ALONE if name in _ALWAYS_ALONE or _is_alone(name, node) else Kind.TRANSACTIONAL


def _is_alone(name: str, node: Any) -> bool:
    match name:
        case "IndexStmt" | "DropStmt":
            return bool(node.concurrent)
        case "ReindexStmt":
            kinds = postgast.pg_query_pb2
            whole = {kinds.REINDEX_OBJECT_SCHEMA, kinds.REINDEX_OBJECT_SYSTEM}
            whole.add(kinds.REINDEX_OBJECT_DATABASE)
            return node.kind in whole or is_concurrent_reindex(node)
        case "VacuumStmt":
            return bool(node.is_vacuumcmd)
        case "ClusterStmt":
            return not node.HasField("relation")
        case "DiscardStmt":
            return bool(node.target == postgast.pg_query_pb2.DISCARD_ALL)
        case "AlterDatabaseStmt":
            return any(option.def_elem.defname == "tablespace" for option in node.options)
        case "AlterSubscriptionStmt":
            # These ask the publisher, unless the option refresh = false spares that.
            kinds = postgast.pg_query_pb2
            return node.kind in {
                kinds.ALTER_SUBSCRIPTION_REFRESH,
                kinds.ALTER_SUBSCRIPTION_SET_PUBLICATION,
                kinds.ALTER_SUBSCRIPTION_ADD_PUBLICATION,
                kinds.ALTER_SUBSCRIPTION_DROP_PUBLICATION,
            }
        case "AlterTableStmt":
            return any(
                command.alter_table_cmd.HasField("def")
                and getattr(command.alter_table_cmd, "def").WhichOneof("node") == "partition_cmd"
                and getattr(command.alter_table_cmd, "def").partition_cmd.concurrent
                for command in node.cmds
            )
        case _:
            return False


def _kind_by_words(words: tuple[str, ...]) -> Kind:
    if not words:
        return Kind.TRANSACTIONAL
    if words[0] in _CONTROL_WORDS or words[:2] in {
        ("start", "transaction"),
        ("prepare", "transaction"),
    }:
        return Kind.TRANSACTION_CONTROL
    if words[0] == "copy" and "from" in words and "stdin" in words:
        return Kind.COPY_FROM_STDIN
    changes_index = words[0] in {"create", "drop", "reindex"} and "index" in words[:3]
    is_alone = (
        words[:2] in _ALONE_WORDS
        or words[0] == "vacuum"
        or words == ("cluster",)
        or (words[0] == "reindex" and ("concurrently" in words or words[1:2] != ("index",)))
        or (changes_index and "concurrently" in words)
        or (words[:2] == ("alter", "table") and words[-1] == "concurrently")
    )
    return Kind.ALONE if is_alone else Kind.TRANSACTIONAL
