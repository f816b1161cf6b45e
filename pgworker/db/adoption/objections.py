"""Whether pgworker can work with what is there. Pure: decides from the facts, all at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from pgworker.db.adoption.objection import Objection, quoted
from pgworker.db.adoption.security import find_security_objections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgworker.db.adoption.facts import Column, Facts, Table, UniqueIndex

BRIDGE: Final = "or build a bridge table: docs/adopting.md"
# Long enough for every text from outside; a message or a URL has no length that could be promised.
ANY_TEXT: Final = 1_000_000


class WantedColumn(NamedTuple):
    """A column that `clients` must have, or gets.

    Attributes:
        definition: of the one that is added; empty for the key.
        types: whose values we can read and write.
        length: the shortest `varchar` that holds our values.
        is_written: whether a transition of a job writes it.
        is_cleared: whether one makes it null.
    """

    definition: str
    types: tuple[str, ...]
    length: int = 0
    is_written: bool = True
    is_cleared: bool = False


_TEXT: Final = ("text", "varchar")
# Without a time zone, they are read and written as UTC (sql/functions/utc.sql).
_TIME: Final = ("timestamptz", "timestamp")

COLUMNS: Final[dict[str, WantedColumn]] = {
    "id": WantedColumn("", ("uuid",), is_written=False),
    "name": WantedColumn("text not null", (*_TEXT, "citext"), is_written=False),
    "auto_provision": WantedColumn("boolean not null default false", ("bool",)),
    "provisioning_status": WantedColumn("text not null default 'not_provisioned'", _TEXT, 32),
    "provisioning_error": WantedColumn("text", _TEXT, ANY_TEXT, is_cleared=True),
    "provisioning_started_at": WantedColumn("timestamptz", _TIME, is_cleared=True),
    "provisioning_completed_at": WantedColumn("timestamptz", _TIME, is_cleared=True),
    "schema_version": WantedColumn("text", _TEXT, 64),
    "project_ref": WantedColumn("text", _TEXT, 64),
    "project_url": WantedColumn("text", _TEXT, ANY_TEXT),
    "additional_settings": WantedColumn("jsonb not null default '{}'", ("jsonb",)),
    "created_at": WantedColumn("timestamptz not null default now()", _TIME, is_written=False),
    "updated_at": WantedColumn("timestamptz not null default now()", _TIME),
}
KINDS: Final = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "c": "a composite type",
    "i": "an index",
    "I": "an index",
}
# Columns in which many clients have the same value; with a key on them only one could be ready.
_SHARED: Final = frozenset(
    {
        "auto_provision",
        "provisioning_status",
        "provisioning_error",
        "provisioning_started_at",
        "provisioning_completed_at",
        "schema_version",
        "additional_settings",
        "updated_at",
    }
)


def find_objections(facts: Facts) -> tuple[Objection, ...]:
    """Return everything that must be changed first; empty when pgworker's schema can be applied."""
    return tuple(_find(facts))


def missing_columns(facts: Facts) -> list[str]:
    """Return the names of the columns that an adopted table gets."""
    there = facts.columns or {}
    return [name for name in COLUMNS if name not in there and COLUMNS[name].definition]


def _find(facts: Facts) -> Iterator[Objection]:
    if facts.table is not None and facts.table.kind not in "rp":
        # Nothing else can be said of what isn't a table.
        yield Objection(
            "public.clients",
            f"is not a table: it is {KINDS.get(facts.table.kind, 'something else')}",
            "a table of that name",
            f"rename it, {BRIDGE}",
        )
    elif facts.table is not None:
        columns = facts.columns or {}
        yield from _about_table(facts.table)
        yield from _about_key(facts.table, columns, facts.unique_indexes)
        for name, wanted in COLUMNS.items():
            if name in columns:
                yield from _about_column(columns[name], wanted)
        yield from _about_values(facts)
        yield from _about_ownership(facts, facts.table, columns)
    if facts.surroundings.has_jobs and not facts.surroundings.has_history:
        yield Objection(
            "public.client_provisioning_jobs",
            "is there already, and pgworker has not made it",
            "a table of its own of that name",
            "rename it, or drop what an older pgworker has left",
        )
    yield from _about_rights(facts)
    yield from find_security_objections(facts.security)


def _about_table(table: Table) -> Iterator[Objection]:
    if table.persistence == "u":
        yield Objection(
            "public.clients",
            "is unlogged",
            "a logged table, because its own are, and their foreign keys refer to it",
            "alter table public.clients set logged",
        )
    if table.is_partition:
        yield Objection(
            "public.clients",
            "is a partition of another table, and inserts into that fire no trigger here",
            "a table of its own, or the partitioned table itself, under that name",
            f"rename it, {BRIDGE}",
        )
    if table.is_typed:
        yield Objection(
            "public.clients",
            "is a typed table",
            "one that can get columns",
            "alter table public.clients not of",
        )
    if table.children:
        yield Objection(
            "public.clients",
            f"has tables that inherit from it ({', '.join(table.children)}), and its key says "
            "nothing of their rows",
            "all clients in one table, or in partitions by id",
            f"alter table {table.children[0]} no inherit public.clients, {BRIDGE}",
        )
    for rule in table.rules:
        yield Objection(
            f"rule {rule} of clients",
            "rewrites its inserts or updates",
            "triggers in its place: PostgreSQL refuses our statements over several clients",
            f"drop rule {quoted(rule)} on public.clients",
        )


def _about_key(
    table: Table, columns: dict[str, Column], indexes: tuple[UniqueIndex, ...]
) -> Iterator[Objection]:
    if "id" in columns and columns["id"].type not in COLUMNS["id"].types:
        return  # its type is objected to
    of_id = [each for each in indexes if each.columns == ["id"] and not each.is_partial]
    if any(each.is_valid and each.is_immediate for each in of_id):
        return
    found, advice = _describe_key(table, columns, of_id)
    yield Objection(
        "clients.id",
        f"must be a uuid primary key (or unique): {found}",
        "a key that its jobs can refer to",
        advice,
    )


def _describe_key(
    table: Table, columns: dict[str, Column], of_id: list[UniqueIndex]
) -> tuple[str, str]:
    if "id" not in columns:
        definition = "add column id uuid primary key default gen_random_uuid()"
        return "there is no such column", f"alter table public.clients {definition}; {BRIDGE}"
    if table.partition_key and not re.fullmatch(r"\w+ \(id\)", table.partition_key):
        # PostgreSQL 14 to 18: a unique index of a partitioned table holds its partition key.
        return (
            f"it is partitioned by {table.partition_key}, which allows no key on id alone",
            f"partition it by id, {BRIDGE}",
        )
    if of_id and not of_id[0].is_valid:
        name = quoted(of_id[0].name)
        return f"index {of_id[0].name} is invalid", f"reindex index concurrently public.{name}"
    how = " concurrently" if not table.partition_key else ""
    advice = f"create unique index{how} clients_id on public.clients (id)"
    if of_id:
        return f"{of_id[0].name} is deferrable, and no foreign key can refer to it", advice
    return "it has no key of its own", advice


def _about_column(column: Column, wanted: WantedColumn) -> Iterator[Objection]:
    subject = f"column clients.{column.name}"
    alter = f"alter table public.clients alter column {column.name}"
    if column.type not in wanted.types:
        change = f"rename the column, {BRIDGE}" if column.name == "id" else "rename the column"
        yield Objection(
            subject,
            f"is of type {column.type}",
            wanted.types[0],
            f"change its type, or {change}, then run pgworker db migrate again",
        )
    if column.length is not None and column.length < wanted.length:
        needed = "text" if wanted.length == ANY_TEXT else f"{wanted.length} at least"
        yield Objection(subject, f"holds {column.length} characters", needed, f"{alter} type text")
    if column.is_generated and (wanted.is_written or not column.is_not_null):
        needed = "to write it" if wanted.is_written else "a value in each row"
        advice = f"{alter} drop expression" if wanted.is_written else f"{alter} set not null"
        yield Objection(subject, "is a generated column", needed, advice)
    if column.is_not_null and wanted.is_cleared:
        yield Objection(subject, "can't be null", "to make it null", f"{alter} drop not null")


def _about_values(facts: Facts) -> Iterator[Objection]:
    for check in facts.status_checks:
        if check.refused:
            yield Objection(
                f"check {check.name} of clients",
                f"refuses provisioning_status {', '.join(check.refused)}",
                "all of its own values there",
                f"alter table public.clients drop constraint {quoted(check.name)}",
            )
    for index in facts.unique_indexes:
        if not index.is_partial and index.columns and _SHARED.issuperset(index.columns):
            yield Objection(
                f"unique index {index.name} of clients",
                f"allows one client for each {', '.join(index.columns)}",
                "many clients with one value",
                f"drop it: it is unique on ({', '.join(index.columns)})",
            )


def _about_ownership(facts: Facts, table: Table, columns: dict[str, Column]) -> Iterator[Objection]:
    if table.is_owner:
        return
    role = facts.surroundings.role
    changes = [f"add column {name} {COLUMNS[name].definition}" for name in missing_columns(facts)]
    if "name" in columns and not columns["name"].is_not_null and not columns["name"].is_generated:
        changes.append("alter column name set not null")
    if changes:
        yield Objection(
            "public.clients",
            f"belongs to role {table.owner}, and role {role} can't change it",
            "its columns there",
            f"as {table.owner}: alter table public.clients {', '.join(changes)}",
            "rights",
        )
    if table.missing_privileges:
        privileges = ", ".join(table.missing_privileges)
        yield Objection(
            f"role {role}",
            f"may not {privileges} on public.clients",
            "these privileges",
            f"grant {privileges} on public.clients to {quoted(role)}",
            "rights",
        )


def _about_rights(facts: Facts) -> Iterator[Objection]:
    here = facts.surroundings
    role = quoted(here.role)
    refused, advice = [], []
    if not here.has_schema and not here.may_create_schemas:
        refused.append(f"schemas in database {here.database}")
        advice.append(f"create schema pgworker authorization {role}")
    if here.may_use_schema is False:
        refused.append("anything in schema pgworker")
        advice.append(f"grant usage, create on schema pgworker to {role}")
    if not (here.has_clients and here.has_jobs) and not here.may_create_tables:
        refused.append("tables in schema public")
        advice.append(f"grant usage, create on schema public to {role}")
    if refused:
        # In one line: it is one thing to ask of an administrator.
        yield Objection(
            f"role {here.role}",
            f"has permission denied to create {', and '.join(refused)}",
            "a place for its own tables, functions and views",
            "; ".join(advice),
            "rights",
        )
