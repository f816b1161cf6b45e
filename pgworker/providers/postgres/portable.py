"""Which migrations leave the same behind whoever runs them, in whichever database, and whenever.

What they leave may be copied from one tenant to the next. Judged by PostgreSQL's own syntax trees
(libpg_query, through postgast), from a list of what is known to be safe: whatever isn't on it, or
can't be parsed, runs in each tenant itself. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import postgast

from pgworker.schema.grammar import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgworker.schema.migrations import CanonicalSet, Migration

_GRAMMAR: Final = postgast.pg_query_pb2

# They make or change objects of the database, and neither read nor write a row. Left out for a
# reason: whatever carries data (a seed's `now()` and `gen_random_uuid()` are the tenant's own),
# runs code (`do`, `call`, `select`), speaks of roles or of the database, or leaves what doesn't
# change hands with `reassign owned` (default privileges, publications, foreign servers).
_SCHEMA_ONLY: Final = frozenset(
    {
        "AlterDomainStmt",
        "AlterEnumStmt",
        "AlterFunctionStmt",
        "AlterObjectSchemaStmt",
        "AlterPolicyStmt",
        "AlterSeqStmt",
        "AlterTableStmt",
        "CommentStmt",
        "CompositeTypeStmt",
        "CreateDomainStmt",
        "CreateEnumStmt",
        "CreateExtensionStmt",
        "CreateFunctionStmt",
        "CreatePolicyStmt",
        "CreateRangeStmt",
        "CreateSchemaStmt",
        "CreateSeqStmt",
        "CreateStatsStmt",
        "CreateStmt",
        "CreateTrigStmt",
        "DropStmt",
        "GrantStmt",
        "IndexStmt",
        "RenameStmt",
        "RuleStmt",
        "VariableSetStmt",
        "ViewStmt",
    }
)
_NOT_OF_A_SCHEMA: Final = frozenset(
    {
        _GRAMMAR.OBJECT_DATABASE,
        _GRAMMAR.OBJECT_EVENT_TRIGGER,
        _GRAMMAR.OBJECT_FDW,
        _GRAMMAR.OBJECT_FOREIGN_SERVER,
        _GRAMMAR.OBJECT_LARGEOBJECT,
        _GRAMMAR.OBJECT_PARAMETER_ACL,
        _GRAMMAR.OBJECT_PUBLICATION,
        _GRAMMAR.OBJECT_ROLE,
        _GRAMMAR.OBJECT_SUBSCRIPTION,
        _GRAMMAR.OBJECT_TABLESPACE,
    }
)
_NAMED_ROLES: Final = frozenset({_GRAMMAR.ROLESPEC_CSTRING, _GRAMMAR.ROLESPEC_PUBLIC})
_WHO_WE_ARE: Final = frozenset({"role", "session_authorization"})
_CLAUSES: Final = frozenset(
    {"from_clause", "where_clause", "into_clause", "with_clause", "values_lists", "larg", "rarg"}
)
# A literal that the server turns into today's date when it reads the statement
# (PostgreSQL 18, section 8.5.1.4).
_SPECIAL_DATE: Final = re.compile(r"\s*(now|today|tomorrow|yesterday)\b", re.IGNORECASE)


def portable_part(canonical: CanonicalSet) -> tuple[Migration, ...]:
    """Return the migrations before the first one that must run in the tenant itself."""
    part: list[Migration] = []
    for migration in canonical.migrations:
        if not is_portable(migration):
            break
        part.append(migration)
    return tuple(part)


def is_portable(migration: Migration) -> bool:
    """Tell whether what the file leaves may be copied to another database and owner."""
    return all(_is_portable(statement.text) for statement in migration.statements)


def created_extensions(migrations: tuple[Migration, ...]) -> tuple[str, ...]:
    """Return the names of the extensions that the files create; their versions are the server's."""
    names = {
        node.extname
        for migration in migrations
        for statement in migration.statements
        for node in parse(statement.text) or ()
        if type(node).__name__ == "CreateExtensionStmt"
    }
    return tuple(sorted(names))


def _is_portable(sql: str) -> bool:
    nodes = parse(sql)
    return nodes is not None and all(
        _is_search_path(node) or (type(node).__name__ in _SCHEMA_ONLY and not any(_doubts(node)))
        for node in nodes
    )


def _is_search_path(node: Any) -> bool:
    """Know `select pg_catalog.set_config('search_path', '', false)`, with which dumps begin."""
    if type(node).__name__ != "SelectStmt" or len(node.target_list) != 1:
        return False
    if [field.name for field, _ in node.ListFields() if field.name in _CLAUSES]:
        return False
    value = node.target_list[0].res_target.val
    if value.WhichOneof("node") != "func_call":
        return False
    name = [part.string.sval for part in value.func_call.funcname]
    kinds = {argument.WhichOneof("node") for argument in value.func_call.args}
    return (
        name[-1:] == ["set_config"]
        and kinds == {"a_const"}
        and value.func_call.args[0].a_const.sval.sval not in _WHO_WE_ARE
    )


def _doubts(node: Any) -> Iterator[bool]:
    """Yield true for each part of a statement whose result may differ from run to run."""
    # An expression is stored, and read anew each time, but for these.
    yield type(node).__name__ == "VariableSetStmt" and node.name in _WHO_WE_ARE
    for _, part in postgast.walk(node):
        match type(part).__name__:
            case "RoleSpec":
                yield part.roletype not in _NAMED_ROLES
            case "A_Const":
                yield _SPECIAL_DATE.match(part.sval.sval) is not None
            case "PartitionBoundSpec":
                yield any(_is_computed(inner) for _, inner in postgast.walk(part))
            case "AlterTableCmd":
                yield part.subtype == _GRAMMAR.AT_ChangeOwner
            case _:
                pass
        for field in ("objtype", "object_type", "remove_type", "rename_type"):
            if field in part.DESCRIPTOR.fields_by_name:
                yield getattr(part, field) in _NOT_OF_A_SCHEMA


def _is_computed(part: Any) -> bool:
    return type(part).__name__ in {"FuncCall", "SQLValueFunction"}
