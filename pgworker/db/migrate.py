"""Applies pgworker's own SQL under an advisory lock, and compares what is applied.

`sql/migrations/` holds numbered files, each applied once, in its own transaction.
`sql/functions/`, `sql/triggers/` and `sql/views/` hold one object a file, written as
`create or replace` and applied again, all in one transaction, when a text has changed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from pgworker.db.adoption.facts import read_facts
from pgworker.db.adoption.index import build_index, has_index
from pgworker.db.adoption.objections import find_objections
from pgworker.db.adoption.plan import Plan, make_plan
from pgworker.db.locks import LockWatch, retry_while_locked
from pgworker.db.queries import find_sql_directory, load
from pgworker.db.translation import translated
from pgworker.errors import BadConfiguration, SchemaMismatch, UnusableTable
from pgworker.telemetry import get_logger

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from pgworker.db.adoption.objection import Objection
    from pgworker.db.pool import Connection

# For the locks of one transaction. A longer one is for a person to plan.
PATIENCE: Final = timedelta(seconds=30)
# A file that changes a large table may take long.
FILE_TIMEOUT: Final = timedelta(hours=1)

# In this order: triggers and views call functions. A later file may use an earlier one.
OBJECT_FOLDERS = ("functions", "triggers", "views")


log = get_logger()


class MigrateQueries(NamedTuple):
    """The statements of `sql/queries/migrate.sql`."""

    defer_function_checks: str
    create_history_table: str
    protect_history: str
    history_exists: str
    history: str
    record: str


MIGRATE_QUERIES = load(MigrateQueries, "queries/migrate.sql")


@dataclass(frozen=True, slots=True)
class SqlFile:
    """A file of ours. `version` is None for an object that is applied again when changed."""

    name: str
    version: int | None
    text: str

    @property
    def checksum(self) -> str:
        """Return the SHA-256 of the text, in hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Applied:
    """A row of `pgworker.schema_history`."""

    name: str
    version: int | None
    checksum: str
    applied_at: datetime


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What is applied, compared with the files of this program.

    Attributes:
        pending: files that `migrate` would apply, in order.
        newer: migrations that this program doesn't know: a newer one has applied them.
        changed: numbered migrations whose text isn't the one that was applied.
    """

    applied: tuple[Applied, ...]
    pending: tuple[SqlFile, ...]
    newer: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def is_current(self) -> bool:
        """Whether a worker may start on it."""
        return not (self.pending or self.newer or self.changed)

    def refuse_if_not_current(self) -> None:
        """Raise `SchemaMismatch`, with the command to run, unless it is current."""
        # First: an older program must not say "run db migrate" to a newer schema.
        self.refuse_if_not_appliable()
        if self.pending:
            raise SchemaMismatch(
                f"pgworker's schema is behind by {len(self.pending)} of its files: "
                "run pgworker db migrate (or start with --migrate)"
            )

    def refuse_if_not_appliable(self) -> None:
        """Raise `SchemaMismatch` when the database is newer, or an applied file was changed."""
        if self.newer:
            raise SchemaMismatch(
                f"pgworker's schema is newer than this program (it has {self.newer[0]}): "
                "upgrade pgworker; nothing was changed"
            )
        if self.changed:
            raise SchemaMismatch(
                f"the applied migration {self.changed[0]} is not the one of this program: "
                "install the release that applied it; nothing was changed"
            )


def read_own_files(directory: Path | None = None) -> tuple[SqlFile, ...]:
    """Return our migrations, then our objects, in the order in which they are applied."""
    root = directory or find_sql_directory()
    # Their order is that of the names, and their names are kept in the history.
    migrations = []
    for path in sorted((root / "migrations").glob("*.sql")):
        number = re.match(r"(\d{4})_\w+\.sql$", path.name)
        if number is None:
            msg = f"{path.name} is not named like 0001_what_it_does.sql"
            raise ValueError(msg)
        migrations.append(
            SqlFile(f"migrations/{path.name}", int(number[1]), path.read_text(encoding="utf-8"))
        )
    objects = [
        SqlFile(f"{folder}/{path.name}", None, path.read_text(encoding="utf-8"))
        for folder in OBJECT_FOLDERS
        for path in sorted((root / folder).glob("*.sql"))
    ]
    return (*migrations, *objects)


def compare(files: tuple[SqlFile, ...], applied: tuple[Applied, ...]) -> SchemaState:
    """Return what is to be done, from the files of this program and what is applied. Pure."""
    checksums = {row.name: row.checksum for row in applied}
    pending: list[SqlFile] = []
    changed: list[str] = []
    for file in files:
        if checksums.get(file.name) == file.checksum:
            continue
        # A numbered migration is never applied a second time, an object whenever it has changed.
        if file.version is not None and file.name in checksums:
            changed.append(file.name)
        else:
            pending.append(file)
    known = {file.name for file in files}
    # An object that this program dropped may stay; a migration that it doesn't know is newer.
    newer = tuple(row.name for row in applied if row.version and row.name not in known)
    return SchemaState(applied, tuple(pending), newer, tuple(changed))


async def read_state(connection: Connection) -> SchemaState:
    """Return the state of pgworker's schema; changes nothing."""
    with translated():
        if not await connection.fetchval(MIGRATE_QUERIES.history_exists):
            return compare(read_own_files(), ())
        rows = await connection.fetch(MIGRATE_QUERIES.history)
    return compare(read_own_files(), tuple(Applied(**dict(row)) for row in rows))


async def read_plan(connection: Connection) -> Plan:
    """Return what `migrate` would do, and what forbids it; changes nothing.

    Raises:
        SchemaMismatch: the database is newer than this program, or an applied file was changed.
    """
    with translated():
        state = await read_state(connection)
        state.refuse_if_not_appliable()
        facts = await read_facts(connection)
        index_is_there = await has_index(connection)
    return make_plan(facts, [file.name for file in state.pending], has_index=index_is_there)


async def migrate(
    connection: Connection, *, dsn: str | None = None, patience: timedelta = PATIENCE
) -> tuple[str, ...]:
    """Bring pgworker's schema up to date; return the names of the files applied.

    Safe to repeat and to run twice at the same time: the second one waits, and finds nothing to do.
    Each numbered migration is one transaction; so are all objects together. No lock is waited for
    longer than others can wait behind us.

    Args:
        connection: outside of any transaction.
        dsn: of the same database, to see over another connection who is in the way.
        patience: for the locks of each transaction.

    Raises:
        UnusableTable, BadConfiguration: something must be changed first, in the table or for our
            role; a line for each thing, and nothing was done.
        SchemaMismatch: the database is newer than this program, or an applied file was changed.
        TableLocked: a lock could not be had; names who holds it.
    """
    done: list[str] = []
    watch = LockWatch(dsn)

    async def attempt(limit: timedelta) -> tuple[str, ...]:
        return await _apply_next(connection, watch, limit)

    with translated():
        while applied := await retry_while_locked(attempt, watch, patience=patience):
            done += applied
        if await build_index(connection, watch, patience=patience):
            log.info("index_built", index="clients_by_age")
    return tuple(done)


async def _apply_next(
    connection: Connection, watch: LockWatch, limit: timedelta
) -> tuple[str, ...]:
    """Apply, in one transaction, the next migration, or all objects once there is none.

    The lock belongs to the transaction, and the state is read again behind it. So nothing depends
    on the session, which a pooler in transaction mode wouldn't keep.
    """
    async with connection.transaction():
        await watch.begin_migration(connection, limit)
        state = await read_state(connection)
        state.refuse_if_not_appliable()
        if not state.pending:
            return ()
        _refuse(find_objections(await read_facts(connection)))
        if state.pending[0].version is not None:
            files = state.pending[:1]
        else:
            files = state.pending
            # Functions call each other, and are created in the order of the alphabet.
            await connection.execute(MIGRATE_QUERIES.defer_function_checks)
        for file in files:
            await _apply(connection, file)
        return tuple(file.name for file in files)


def _refuse(objections: tuple[Objection, ...]) -> None:
    """Raise an error with a line for each of them; the login is to blame if all are about it."""
    if objections:
        is_about_role = all(objection.about != "table" for objection in objections)
        error = BadConfiguration if is_about_role else UnusableTable
        raise error("\n".join(str(objection) for objection in objections))


async def _apply(connection: Connection, file: SqlFile) -> None:
    await connection.execute(file.text, timeout=FILE_TIMEOUT.total_seconds())
    # Created after the first migration ran, so that a refused one leaves nothing behind. Looked for
    # before: `if not exists` asks for rights, and locks it, even where it is there.
    if not await connection.fetchval(MIGRATE_QUERIES.history_exists):
        await connection.execute(MIGRATE_QUERIES.create_history_table)
        await connection.execute(MIGRATE_QUERIES.protect_history)
    await connection.execute(MIGRATE_QUERIES.record, file.name, file.version, file.checksum)
