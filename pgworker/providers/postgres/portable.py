"""Which migrations have the same result for every role, in every database and at any time.

Their result may be copied from one tenant to another. This is judged by PostgreSQL's own syntax
trees (libpg_query, through postgast) and a list of statements that are known to be safe: a
statement that isn't on it, or can't be parsed, runs in each tenant itself. Pure.
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

# They create or change objects of the database, and neither read nor write a row. Left out on
# purpose: statements with data (a seed's `now()` and `gen_random_uuid()` must differ from tenant to
# tenant), with code (`do`, `call`, `select`), about roles or the database, and those whose result
# `reassign owned` doesn't reassign (default privileges, publications, foreign servers).
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
_OUTSIDE_OF_SCHEMAS: Final = frozenset(
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
_IDENTITY_SETTINGS: Final = frozenset({"role", "session_authorization"})
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
    """Return whether the file's result may be copied to another database and owner."""
    return all(_is_portable(statement.text) for statement in migration.statements)


def created_extensions(migrations: tuple[Migration, ...]) -> tuple[str, ...]:
    """Return the names of the extensions that the files create, in the server's versions."""
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
        _is_search_path(node)
        or (type(node).__name__ in _SCHEMA_ONLY and not any(_find_variable_parts(node)))
        for node in nodes
    )


def _is_search_path(node: Any) -> bool:
    """Recognise `select pg_catalog.set_config('search_path', '', false)`: dumps begin with it."""
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
        and value.func_call.args[0].a_const.sval.sval not in _IDENTITY_SETTINGS
    )


def _find_variable_parts(node: Any) -> Iterator[bool]:
    """Yield true for each part of a statement whose result may differ from run to run."""
    # Expressions are stored and evaluated again each time, except for these.
    yield type(node).__name__ == "VariableSetStmt" and node.name in _IDENTITY_SETTINGS
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
                yield getattr(part, field) in _OUTSIDE_OF_SCHEMAS


def _is_computed(part: Any) -> bool:
    return type(part).__name__ in {"FuncCall", "SQLValueFunction"}
