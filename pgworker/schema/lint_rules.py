"""The rules of `schema lint` that look at one statement: what it destroys, locks or opens. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import postgast

from pgworker.schema.grammar import is_concurrent_reindex

if TYPE_CHECKING:
    from collections.abc import Iterator

_GRAMMAR = postgast.pg_query_pb2

TableName: TypeAlias = tuple[str, str]
RuleMatch: TypeAlias = tuple[str, str, str]  # rule, severity, message

# Functions that give every row the same value: a default of these doesn't rewrite the table.
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
    """What the statement's file tells.

    Attributes:
        created: tables that it created before.
        is_alone: whether it holds no other statement.
    """

    created: set[TableName]
    is_alone: bool


def table_name(relation: Any) -> TableName:
    """Return schema and name of a `RangeVar`; without a schema it is taken for `public`."""
    return (relation.schemaname or "public", relation.relname)


def is_public(name: TableName) -> bool:
    """Tell whether the Data API shows the table."""
    return name[0] == "public"


def created_tables(node: Any) -> set[TableName]:
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
    return set() if relation.relpersistence == "t" else {table_name(relation)}


def dropped_tables(node: Any) -> list[TableName]:
    """Return the tables that a `DropStmt` names."""
    if node.remove_type != _GRAMMAR.OBJECT_TABLE:
        return []
    names = [[part.string.sval for part in entry.list.items] for entry in node.objects]
    return [(name[-2] if len(name) > 1 else "public", name[-1]) for name in names]


def judge(node: Any, context: Context) -> Iterator[RuleMatch]:
    """Yield what there is to say about one statement."""
    rule = _RULES.get(type(node).__name__)
    if rule is not None:
        yield from rule(node, context)


def _drop(node: Any, context: Context) -> Iterator[RuleMatch]:
    if node.remove_type == _GRAMMAR.OBJECT_TABLE:
        for name in dropped_tables(node):
            if name not in context.created:
                yield "drop-table", "error", f"drops {_dotted(name)} with everything in it"
    elif node.remove_type == _GRAMMAR.OBJECT_SCHEMA:
        names = ", ".join(entry.string.sval for entry in node.objects)
        yield "drop-schema", "error", f"drops schema {names}"
    elif node.remove_type == _GRAMMAR.OBJECT_INDEX:
        if not node.concurrent:
            yield "index-not-concurrent", "warning", "locks the table: drop index concurrently"
        elif not node.missing_ok:
            yield _not_idempotent("if exists")


def _truncate(node: Any, context: Context) -> Iterator[RuleMatch]:
    for relation in node.relations:
        if not _is_new(relation.range_var, context):
            yield "truncate", "error", f"empties {_dotted(table_name(relation.range_var))}"


def _delete(node: Any, context: Context) -> Iterator[RuleMatch]:
    if not node.HasField("where_clause") and not _is_new(node.relation, context):
        yield "delete-without-where", "error", f"empties {_dotted(table_name(node.relation))}"


def _update(node: Any, context: Context) -> Iterator[RuleMatch]:
    if not node.HasField("where_clause") and not _is_new(node.relation, context):
        name = _dotted(table_name(node.relation))
        yield "update-without-where", "warning", f"rewrites and locks every row of {name}"


def _rename(node: Any, context: Context) -> Iterator[RuleMatch]:
    kinds = {
        _GRAMMAR.OBJECT_TABLE: "table",
        _GRAMMAR.OBJECT_COLUMN: "column",
        _GRAMMAR.OBJECT_VIEW: "view",
        _GRAMMAR.OBJECT_SCHEMA: "schema",
    }
    kind = kinds.get(node.rename_type)
    if kind is None or (node.HasField("relation") and _is_new(node.relation, context)):
        return
    old = node.subname or node.relation.relname
    yield "rename", "error", f"renames {kind} {old}: what still uses the old name breaks"


def _index(node: Any, context: Context) -> Iterator[RuleMatch]:
    if node.concurrent:
        if not node.if_not_exists:
            yield _not_idempotent("if not exists")
    elif not _is_new(node.relation, context):
        name = _dotted(table_name(node.relation))
        yield (
            "index-not-concurrent",
            "warning",
            f"blocks writes to {name} while it builds: create index concurrently, in its own file",
        )


def _alter_table(node: Any, context: Context) -> Iterator[RuleMatch]:
    if node.objtype != _GRAMMAR.OBJECT_TABLE:
        return
    is_new = _is_new(node.relation, context)
    name = _dotted(table_name(node.relation))
    for item in node.cmds:
        command = item.alter_table_cmd
        if command.subtype == _GRAMMAR.AT_DisableRowSecurity:
            yield "disable-row-level-security", "error", f"opens {name} to every role with a grant"
        elif not is_new:
            yield from _command(command, name)


def _command(command: Any, name: str) -> Iterator[RuleMatch]:
    match command.subtype:
        case _GRAMMAR.AT_DropColumn:
            yield "drop-column", "error", f"drops {name}.{command.name} with everything in it"
        case _GRAMMAR.AT_AlterColumnType:
            yield (
                "alter-column-type",
                "error",
                f"may rewrite {name} under an exclusive lock, and break who reads {command.name}",
            )
        case _GRAMMAR.AT_SetNotNull:
            yield (
                "set-not-null",
                "warning",
                f"reads all of {name} under an exclusive lock: validate a check constraint first",
            )
        case _GRAMMAR.AT_AddColumn:
            yield from _add_column(getattr(command, "def").column_def, name)
        case _GRAMMAR.AT_AddConstraint:
            yield from _add_constraint(getattr(command, "def").constraint, name)
        case _:
            pass


def _add_column(column: Any, name: str) -> Iterator[RuleMatch]:
    type_name = column.type_name.names[-1].string.sval
    constraints = [item.constraint for item in column.constraints]
    if type_name in _SERIAL_TYPES or any(_rewrites(constraint) for constraint in constraints):
        yield (
            "add-column-volatile-default",
            "warning",
            f"rewrites {name} under an exclusive lock: add {column.colname} first, fill it later",
        )
    for constraint in constraints:
        if constraint.contype in {_GRAMMAR.CONSTR_PRIMARY, _GRAMMAR.CONSTR_UNIQUE}:
            yield _without_index(name)


def _rewrites(constraint: Any) -> bool:
    if constraint.contype == _GRAMMAR.CONSTR_IDENTITY:
        return True
    if constraint.contype == _GRAMMAR.CONSTR_GENERATED:
        return bool(constraint.generated_kind != "v")
    if constraint.contype != _GRAMMAR.CONSTR_DEFAULT:
        return False
    return any(
        call.funcname[-1].string.sval not in _STEADY_FUNCTIONS
        for _, call in postgast.walk(constraint.raw_expr)
        if type(call).__name__ == "FuncCall"
    )


def _add_constraint(constraint: Any, name: str) -> Iterator[RuleMatch]:
    match constraint.contype:
        case _GRAMMAR.CONSTR_FOREIGN | _GRAMMAR.CONSTR_CHECK if not constraint.skip_validation:
            yield (
                "constraint-not-valid",
                "warning",
                f"reads all of {name} under a lock: add it not valid, validate it in a later file",
            )
        case _GRAMMAR.CONSTR_PRIMARY | _GRAMMAR.CONSTR_UNIQUE if not constraint.indexname:
            yield _without_index(name)
        case _:
            pass


def _create_function(node: Any, _context: Context) -> Iterator[RuleMatch]:
    yield from _security_definer([item.def_elem for item in node.options])


def _alter_function(node: Any, _context: Context) -> Iterator[RuleMatch]:
    yield from _security_definer([item.def_elem for item in node.actions])


def _security_definer(options: list[Any]) -> Iterator[RuleMatch]:
    is_definer = any(o.defname == "security" and o.arg.boolean.boolval for o in options)
    is_pinned = any(
        o.defname == "set" and o.arg.variable_set_stmt.name == "search_path" for o in options
    )
    if is_definer and not is_pinned:
        yield (
            "security-definer-search-path",
            "error",
            (
                "a security definer function runs what its caller's search_path finds: "
                "add set search_path = ''"
            ),
        )


def _vacuum(node: Any, _context: Context) -> Iterator[RuleMatch]:
    if any(option.def_elem.defname == "full" for option in node.options):
        yield "vacuum-full", "error", "rewrites the table under an exclusive lock"


def _cluster(node: Any, context: Context) -> Iterator[RuleMatch]:
    if not _is_new(node.relation, context):
        yield "cluster", "error", "rewrites the table under an exclusive lock"


def _reindex(node: Any, _context: Context) -> Iterator[RuleMatch]:
    if not is_concurrent_reindex(node):
        yield "reindex", "warning", "blocks writes meanwhile: reindex … concurrently"


def _refresh(node: Any, _context: Context) -> Iterator[RuleMatch]:
    if not node.concurrent:
        yield (
            "refresh-not-concurrent",
            "warning",
            (
                f"blocks reads of {_dotted(table_name(node.relation))} meanwhile: "
                "refresh materialized view concurrently"
            ),
        )


def _alter_enum(node: Any, context: Context) -> Iterator[RuleMatch]:
    if node.new_val and not node.old_val and not context.is_alone:
        yield (
            "enum-value-not-alone",
            "warning",
            "the new value can't be used before its file has been committed: give it its own file",
        )


def _is_new(relation: Any, context: Context) -> bool:
    return relation.relpersistence == "t" or table_name(relation) in context.created


def _dotted(name: TableName) -> str:
    return ".".join(name)


def _not_idempotent(words: str) -> RuleMatch:
    return "not-idempotent", "warning", f"may run twice, after a crash: add {words}"


def _without_index(name: str) -> RuleMatch:
    return (
        "constraint-without-index",
        "warning",
        (
            f"builds an index on {name} under an exclusive lock: build it concurrently, then add "
            "the constraint using index"
        ),
    )


_RULES = {
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
