"""What applying pgworker's schema changes, above all on the platform's own `clients`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from pgworker.db.adoption.objection import Objection
from pgworker.db.adoption.objections import COLUMNS, find_objections, missing_columns
from pgworker.db.adoption.security import find_hidden_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgworker.db.adoption.facts import Column, Facts, Table

# Below it an index is built within the moment for which writes may be blocked.
LARGE_BYTES: Final = 16 * 1024 * 1024
# What other sessions can't do on a table while one holds the lock (PostgreSQL 18, chapter 13.3.1).
BLOCKED_BY: Final = {
    "access exclusive": "reads and writes",
    "share row exclusive": "writes",
    "share": "writes",
    "share update exclusive": "nothing",
    "row exclusive": "nothing",
    "none": "nothing",
}
TABLE_FILE: Final = "migrations/0001_clients.sql"
# Files with foreign keys that refer to clients.
REFERRING: Final = (
    "migrations/0002_jobs.sql",
    "migrations/0003_tenants.sql",
    "migrations/0004_http.sql",
)
TRIGGERS: Final = {
    "triggers/client_queued.sql": "trigger pgworker_client_queued (before insert)",
    "triggers/clients_inserted.sql": "trigger pgworker_clients_inserted (after insert)",
}


class Change(NamedTuple):
    """A change on `clients`; its fields are keys of `pgworker db migrate --dry-run --json`.

    Attributes:
        change: what is done.
        lock: that it takes on the table.
        note: what takes time, or what else is worth knowing; empty when nothing is.
    """

    change: str
    lock: str
    note: str = ""

    @property
    def blocks(self) -> str:
        """What other sessions can't do while the lock is held."""
        return BLOCKED_BY[self.lock]


@dataclass(frozen=True, slots=True)
class Plan:
    """What `pgworker db migrate` would do.

    Attributes:
        files: their names, in the order in which they would be applied.
        changes: on `clients`, in their order.
        objections: what must be changed first: while there is one, nothing is applied.
        notices: what goes on working as it does, and may surprise.
    """

    files: tuple[str, ...]
    changes: tuple[Change, ...]
    objections: tuple[Objection, ...]
    notices: tuple[str, ...]


def make_plan(facts: Facts, pending: Sequence[str], *, has_index: bool) -> Plan:
    """Return the plan.

    Args:
        facts: what is there.
        pending: names of the files that would be applied.
        has_index: whether the index for lists of all clients is there, and whole.
    """
    return Plan(
        files=tuple(pending),
        changes=tuple(_find_changes(facts, pending, has_index=has_index)),
        objections=find_objections(facts),
        notices=tuple(_find_notices(facts)),
    )


def is_built_concurrently(table: Table) -> bool:
    """Return whether an index of the table is built without blocking writes.

    PostgreSQL (14 to 18) can't do that on a partitioned table, and a small one isn't worth it.
    """
    return table.kind == "r" and table.size_bytes > LARGE_BYTES


def _find_changes(facts: Facts, pending: Sequence[str], *, has_index: bool) -> Iterator[Change]:
    if facts.table is None:
        if TABLE_FILE in pending:
            yield Change("create table public.clients", "none", "it is empty: no session waits")
        return
    if TABLE_FILE in pending:
        yield from _changes_of_table(facts, facts.table)
    if any(name in pending for name in REFERRING):
        yield Change("foreign keys of pgworker's tables refer to id", "share row exclusive")
    for name, trigger in TRIGGERS.items():
        if name in pending:
            yield Change(trigger, "share row exclusive")
    if not has_index and facts.table.is_owner:
        yield _change_of_index(facts.table)


def _changes_of_table(facts: Facts, table: Table) -> Iterator[Change]:
    columns = facts.columns or {}
    missing = missing_columns(facts)
    for name in missing:
        # That of name comes below: it is filled first.
        definition = "text" if name == "name" else COLUMNS[name].definition
        yield Change(f"add column {name} {definition}", "access exclusive")
    name_column = columns.get("name")
    if name_column is None or not name_column.is_not_null:
        rows = f"about {table.estimated_rows} rows"
        yield Change(
            "update: name = id where it is null", "row exclusive", f"of {rows}, one by one"
        )
        yield Change("alter column name set not null", "access exclusive", f"reads {rows}")
    if table.takes_fillfactor and table.is_owner:
        yield Change("set (fillfactor = 40)", "share update exclusive", "rewrites nothing")


def _change_of_index(table: Table) -> Change:
    if is_built_concurrently(table):
        return Change(
            "create index concurrently clients_by_age",
            "share update exclusive",
            f"reads {table.size_bytes // 1024 // 1024} MB twice; can be repeated",
        )
    note = f"reads about {table.estimated_rows} rows"
    if table.partition_key:
        note += "; PostgreSQL can't build it concurrently on a partitioned table"
    return Change("create index clients_by_age", "share", note)


def _find_notices(facts: Facts) -> Iterator[str]:
    for hidden in find_hidden_rows(facts.security):
        yield f"{hidden.subject} {hidden.found} ({hidden.advice})"
    if facts.table is None or facts.columns is None:
        return
    columns = facts.columns
    if facts.table.partition_key:
        yield (
            "clients that are inserted into a partition, and not into public.clients, get no job: "
            "PostgreSQL fires no statement trigger of the partitioned table for them"
        )
    if "id" in columns and not columns["id"].is_not_null:
        yield "column clients.id may be null: a client without an id can't be provisioned"
    for name in ("created_at", "updated_at"):
        if name in columns:
            yield from _notice_of_time(columns[name])
    without_default = [
        column.name
        for column in columns.values()
        if column.is_not_null
        and not column.has_default
        and not column.is_generated
        and column.name not in COLUMNS
    ]
    if without_default:
        yield (
            f"pgworker clients add and POST /clients can't insert clients: "
            f"{', '.join(without_default)} must be given and have no default"
        )
    if not facts.table.is_owner:
        yield (
            f"index clients_by_age, for lists of all clients, is left to {facts.table.owner}, who "
            "owns the table: create index concurrently clients_by_age on public.clients "
            "(coalesce(created_at, '-infinity') desc, id desc)"
        )


def _notice_of_time(column: Column) -> Iterator[str]:
    if column.type == "timestamp":
        hint = ""
        is_local = re.search(r"now\(\)|current_timestamp", column.default_value, re.IGNORECASE)
        if is_local and not re.search("time ?zone", column.default_value, re.IGNORECASE):
            hint = (
                "; its default is the local time of the session that inserts: alter table "
                f"public.clients alter column {column.name} set default (now() at time zone 'UTC')"
            )
        yield f"column clients.{column.name} has no time zone: it is read and written as UTC{hint}"
