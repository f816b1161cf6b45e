"""The rules of `schema lint` that look at one statement: what it destroys, locks or opens. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

import postgast

from pgworker.schema.grammar import is_concurrent_reindex

_GRAMMAR: Final = postgast.pg_query_pb2

TableName: TypeAlias = tuple[str, str]  # schema, name
Hit: TypeAlias = tuple[str, str]  # rule, message


class Severity(StrEnum):
    """How much a violation matters."""

    ERROR = "error"  # it loses data, stops the tenant's application or opens it to others
    WARNING = "warning"  # it may, depending on what the tenant holds


# All rules of `schema lint`, also those that look at the whole set (`lint_exposure`).
SEVERITIES: Final = {
    "add-column-volatile-default": Severity.WARNING,
    "alter-column-type": Severity.ERROR,
    "cluster": Severity.ERROR,
    "constraint-not-valid": Severity.WARNING,
    "constraint-without-index": Severity.WARNING,
    "delete-without-where": Severity.ERROR,
    "disable-row-level-security": Severity.ERROR,
    "drop-column": Severity.ERROR,
    "drop-schema": Severity.ERROR,
    "drop-table": Severity.ERROR,
    "enum-value-not-alone": Severity.WARNING,
    "index-not-concurrent": Severity.WARNING,
    "no-grant": Severity.WARNING,
    "no-row-level-security": Severity.ERROR,
    "not-idempotent": Severity.WARNING,
    "refresh-not-concurrent": Severity.WARNING,
    "reindex": Severity.WARNING,
    "rename": Severity.ERROR,
    "security-definer-search-path": Severity.ERROR,
    "set-not-null": Severity.WARNING,
    "truncate": Severity.ERROR,
    "unparsable": Severity.ERROR,
    "update-without-where": Severity.WARNING,
    "vacuum-full": Severity.ERROR,
}

# Functions that give every row the same value: such a default doesn't rewrite the table.
_STEADY_FUNCTIONS = frozenset(
    {
        "current_setting",
        "jsonb_build_array",
        "jsonb_build_object",
        "lower",
        "make_interval",
        "now",
        "statement_timestamp",
        "timezone",
        "transaction_timestamp",
        "upper",
    }
)
_SERIAL_TYPES = frozenset({"bigserial", "serial", "serial2", "serial4", "serial8", "smallserial"})


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of the statement's file.

    Attributes:
        created: tables that this statement or an earlier one created.
        is_alone: whether the file holds no other statement.
    """

    created: set[TableName]
    is_alone: bool

    def is_new(self, relation: Any) -> bool:
        """Return whether a table is temporary or from this file, and so is empty and unused."""
        return relation.relpersistence == "t" or read_table_name(relation) in self.created


def read_table_name(relation: Any) -> TableName:
    """Return schema and name of a `RangeVar`; without a schema it is taken for `public`."""
    return (relation.schemaname or "public", relation.relname)


def is_public(name: TableName) -> bool:
    """Return whether the Data API shows the table."""
    return name[0] == "public"


def find_created_tables(node: Any) -> set[TableName]:
    """Return the table that the statement creates, if it does; temporary ones don't count."""
    match type(node).__name__:
        case "CreateStmt":
            relation = node.relation
        case "CreateTableAsStmt" if node.objtype == _GRAMMAR.OBJECT_TABLE:
            relation = node.into.rel
        case "SelectStmt" if node.HasField("into_clause"):
            relation = node.into_clause.rel
        case _:
            return set()
    return set() if relation.relpersistence == "t" else {read_table_name(relation)}


def list_dropped_tables(node: Any) -> list[TableName]:
    """Return the tables that a `DropStmt` names."""
    if node.remove_type != _GRAMMAR.OBJECT_TABLE:
        return []
    names = [[part.string.sval for part in entry.list.items] for entry in node.objects]
    return [(name[-2] if len(name) > 1 else "public", name[-1]) for name in names]


def judge(node: Any, context: Context) -> Iterable[Hit]:
    """Return the rules that one statement breaks, each with its message."""
    rule = _RULES.get(type(node).__name__)
    return () if rule is None else rule(node, context)


def _dotted(name: TableName) -> str:
    return ".".join(name)


def _not_idempotent(words: str) -> Hit:
    return "not-idempotent", f"may run twice, after a crash: add {words}"


# -- data -------------------------------------------------------------------------------------


def _drop(node: Any, context: Context) -> Iterator[Hit]:
    match node.remove_type:
        case _GRAMMAR.OBJECT_TABLE:
            for name in list_dropped_tables(node):
                if name not in context.created:
                    yield "drop-table", f"drops {_dotted(name)} with everything in it"
        case _GRAMMAR.OBJECT_SCHEMA:
            names = ", ".join(entry.string.sval for entry in node.objects)
            yield "drop-schema", f"drops schema {names}"
        case _GRAMMAR.OBJECT_INDEX:
            yield from _drop_index(node)
        case _:
            pass


def _drop_index(node: Any) -> Iterator[Hit]:
    # The statement names no table: whether the index is of a new one can't be known.
    if not node.concurrent:
        yield "index-not-concurrent", "locks the table: drop index concurrently"
    elif not node.missing_ok:
        yield _not_idempotent("if exists")


def _truncate(node: Any, context: Context) -> Iterator[Hit]:
    for relation in node.relations:
        if not context.is_new(relation.range_var):
            yield "truncate", f"empties {_dotted(read_table_name(relation.range_var))}"


def _delete(node: Any, context: Context) -> Iterator[Hit]:
    if not node.HasField("where_clause") and not context.is_new(node.relation):
        yield "delete-without-where", f"empties {_dotted(read_table_name(node.relation))}"


def _update(node: Any, context: Context) -> Iterator[Hit]:
    if not node.HasField("where_clause") and not context.is_new(node.relation):
        name = _dotted(read_table_name(node.relation))
        yield "update-without-where", f"rewrites and locks every row of {name}"


# -- names ------------------------------------------------------------------------------------

_RENAMED: Final = {
    _GRAMMAR.OBJECT_TABLE: "table",
    _GRAMMAR.OBJECT_COLUMN: "column",
    _GRAMMAR.OBJECT_VIEW: "view",
    _GRAMMAR.OBJECT_SCHEMA: "schema",
}


def _rename(node: Any, context: Context) -> Iterator[Hit]:
    kind = _RENAMED.get(node.rename_type)
    if kind is None or (node.HasField("relation") and context.is_new(node.relation)):
        return
    old = node.subname or node.relation.relname
    yield "rename", f"renames {kind} {old}: programs that use the old name break"


# -- tables -----------------------------------------------------------------------------------


def _alter_table(node: Any, context: Context) -> Iterator[Hit]:
    if node.objtype != _GRAMMAR.OBJECT_TABLE:
        return
    is_new = context.is_new(node.relation)
    name = _dotted(read_table_name(node.relation))
    for item in node.cmds:
        command = item.alter_table_cmd
        if command.subtype == _GRAMMAR.AT_DisableRowSecurity:
            yield "disable-row-level-security", f"opens {name} to every role with a grant"
        elif not is_new and (rule := _COMMANDS.get(command.subtype)) is not None:
            yield from rule(command, name)


def _drop_column(command: Any, name: str) -> Iterator[Hit]:
    yield "drop-column", f"drops {name}.{command.name} with everything in it"


def _alter_column_type(command: Any, name: str) -> Iterator[Hit]:
    yield (
        "alter-column-type",
        f"may rewrite {name} under an exclusive lock, and break programs that read {command.name}",
    )


# PostgreSQL 12 and newer skip the scan when a valid check constraint proves that there is no null.
def _set_not_null(_command: Any, name: str) -> Iterator[Hit]:
    yield (
        "set-not-null",
        f"reads all of {name} under an exclusive lock: validate a check constraint first",
    )


def _add_column(command: Any, name: str) -> Iterator[Hit]:
    column = getattr(command, "def").column_def
    constraints = [item.constraint for item in column.constraints]
    type_name = column.type_name.names[-1].string.sval
    if type_name in _SERIAL_TYPES or any(map(_rewrites, constraints)):
        yield (
            "add-column-volatile-default",
            f"rewrites {name} under an exclusive lock: add {column.colname} first, fill it later",
        )
    for constraint in constraints:
        if constraint.contype in {_GRAMMAR.CONSTR_PRIMARY, _GRAMMAR.CONSTR_UNIQUE}:
            yield _without_index(name)


def _rewrites(constraint: Any) -> bool:
    match constraint.contype:
        case _GRAMMAR.CONSTR_IDENTITY:
            return True
        case _GRAMMAR.CONSTR_GENERATED:
            return bool(constraint.generated_kind != "v")  # v: virtual, computed when it is read
        case _GRAMMAR.CONSTR_DEFAULT:
            return any(
                call.funcname[-1].string.sval not in _STEADY_FUNCTIONS
                for _, call in postgast.walk(constraint.raw_expr)
                if type(call).__name__ == "FuncCall"
            )
        case _:
            return False


def _add_constraint(command: Any, name: str) -> Iterator[Hit]:
    constraint = getattr(command, "def").constraint
    match constraint.contype:
        case _GRAMMAR.CONSTR_FOREIGN | _GRAMMAR.CONSTR_CHECK if not constraint.skip_validation:
            yield (
                "constraint-not-valid",
                f"reads all of {name} under a lock: add it not valid, validate it in a later file",
            )
        case _GRAMMAR.CONSTR_PRIMARY | _GRAMMAR.CONSTR_UNIQUE if not constraint.indexname:
            yield _without_index(name)
        case _:
            pass


def _without_index(name: str) -> Hit:
    return (
        "constraint-without-index",
        (
            f"builds an index on {name} under an exclusive lock: build it concurrently, then add "
            "the constraint using index"
        ),
    )


_COMMANDS: Final[dict[int, Callable[[Any, str], Iterator[Hit]]]] = {
    _GRAMMAR.AT_AddColumn: _add_column,
    _GRAMMAR.AT_AddConstraint: _add_constraint,
    _GRAMMAR.AT_AlterColumnType: _alter_column_type,
    _GRAMMAR.AT_DropColumn: _drop_column,
    _GRAMMAR.AT_SetNotNull: _set_not_null,
}


# -- indexes and storage ----------------------------------------------------------------------


def _index(node: Any, context: Context) -> Iterator[Hit]:
    if node.concurrent:
        if not node.if_not_exists:
            yield _not_idempotent("if not exists")
    elif not context.is_new(node.relation):
        name = _dotted(read_table_name(node.relation))
        yield (
            "index-not-concurrent",
            f"blocks writes to {name} while it builds: create index concurrently, in its own file",
        )


def _vacuum(node: Any, _context: Context) -> Iterator[Hit]:
    if any(option.def_elem.defname == "full" for option in node.options):
        yield "vacuum-full", "rewrites the table under an exclusive lock"


def _cluster(node: Any, context: Context) -> Iterator[Hit]:
    if not context.is_new(node.relation):
        yield "cluster", "rewrites the table under an exclusive lock"


def _reindex(node: Any, _context: Context) -> Iterator[Hit]:
    if not is_concurrent_reindex(node):
        yield "reindex", "blocks writes meanwhile: reindex … concurrently"


def _refresh(node: Any, _context: Context) -> Iterator[Hit]:
    if not node.concurrent:
        name = _dotted(read_table_name(node.relation))
        yield (
            "refresh-not-concurrent",
            f"blocks reads of {name} meanwhile: refresh materialized view concurrently",
        )


# -- functions and types ----------------------------------------------------------------------


def _create_function(node: Any, _context: Context) -> Iterator[Hit]:
    yield from _security_definer([item.def_elem for item in node.options])


def _alter_function(node: Any, _context: Context) -> Iterator[Hit]:
    yield from _security_definer([item.def_elem for item in node.actions])


def _security_definer(options: list[Any]) -> Iterator[Hit]:
    is_definer = any(o.defname == "security" and o.arg.boolean.boolval for o in options)
    is_pinned = any(
        o.defname == "set" and o.arg.variable_set_stmt.name == "search_path" for o in options
    )
    if is_definer and not is_pinned:
        yield (
            "security-definer-search-path",
            (
                "a security definer function runs what its caller's search_path finds: "
                "add set search_path = ''"
            ),
        )


def _alter_enum(node: Any, context: Context) -> Iterator[Hit]:
    if node.new_val and not node.old_val and not context.is_alone:
        yield (
            "enum-value-not-alone",
            "the new value can't be used before its file has been committed: give it its own file",
        )


# By the type of the statement's node.
_RULES: Final[dict[str, Callable[[Any, Context], Iterator[Hit]]]] = {
    "AlterEnumStmt": _alter_enum,
    "AlterFunctionStmt": _alter_function,
    "AlterTableStmt": _alter_table,
    "ClusterStmt": _cluster,
    "CreateFunctionStmt": _create_function,
    "DeleteStmt": _delete,
    "DropStmt": _drop,
    "IndexStmt": _index,
    "RefreshMatViewStmt": _refresh,
    "ReindexStmt": _reindex,
    "RenameStmt": _rename,
    "TruncateStmt": _truncate,
    "UpdateStmt": _update,
    "VacuumStmt": _vacuum,
}
