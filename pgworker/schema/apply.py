"""Brings a tenant's schema to the canonical set, one file after the other.

Works over any `TenantConnection`; what it may not assume is a session between two calls. Safe to
repeat from any line: a file and its row of the history are one transaction, and the history says
where to go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgworker.db.sqlstate import (
    UNDEFINED_SCHEMA,
    UNDEFINED_TABLE,
    UNIQUE_VIOLATION,
    belongs_to,
)
from pgworker.errors import (
    JobError,
    MigrationFailed,
    OutcomeUnknown,
    Transient,
)
from pgworker.schema import scripts
from pgworker.schema.grammar import concurrent_index
from pgworker.schema.migrations import AppliedMigration, plan
from pgworker.schema.scripts import Place
from pgworker.tenants.connection import StatementError, as_job_errors
from pgworker.tenants.steps import NoSteps, Step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from pgworker.schema.migrations import CanonicalSet, Migration
    from pgworker.tenants.connection import TenantConnection
    from pgworker.tenants.steps import Steps


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did.

    Attributes:
        applied: versions that it applied itself, oldest first.
        head: newest version that the tenant has now.
    """

    applied: tuple[str, ...]
    head: str | None


async def read_history(connection: TenantConnection) -> tuple[AppliedMigration, ...]:
    """Return the migrations that the tenant has, oldest first; changes nothing.

    Raises:
        JobError: the history can't be read.
    """
    with as_job_errors("the migration history can't be read"):
        try:
            rows = await connection.fetch(scripts.READ_HISTORY)
        except StatementError as error:
            if belongs_to(error.sqlstate, (*UNDEFINED_SCHEMA, *UNDEFINED_TABLE)):
                return ()  # no migration has been applied yet
            raise
    return tuple(_applied_migration(row) for row in rows)


async def apply_migrations(
    connection: TenantConnection,
    canonical: CanonicalSet,
    *,
    include_all: bool = False,
    steps: Steps | None = None,
    on_applied: Callable[[Migration], Awaitable[None]] | None = None,
) -> SyncReport:
    """Apply what the tenant lacks. Safe to repeat, and to run twice at once.

    Args:
        connection: the way to the tenant.
        canonical: what it should have.
        include_all: also apply a file that is older than the newest applied one.
        steps: the ledger that is told of each file, before and after.
        on_applied: awaited after each file that this call has applied.

    Raises:
        MigrationRefused: set and history don't fit together; nothing was changed.
        MigrationFailed: a statement failed. Its file was rolled back, those before it stay; the
            next sync begins with it.
        Transient: the tenant was busy or couldn't be reached; likewise.
    """
    steps = steps or NoSteps()
    history = await read_history(connection)
    pending = plan(canonical, history, include_all=include_all)
    found = [row.version for row in history]
    if not pending:
        await steps.confirm(Step.APPLY_MIGRATION, found)
    applied: list[str] = []
    if pending and not _is_complete_table(history):
        with as_job_errors("the migration history can't be created"):
            await connection.execute(scripts.CREATE_HISTORY)
    while pending:
        migration = pending[0]
        is_ours = await _apply(connection, migration, steps, found=found)
        found = []
        if is_ours:
            applied.append(migration.version)
            if on_applied is not None:
                await on_applied(migration)
            pending = pending[1:]
        else:
            # Somebody else syncs this tenant too, perhaps with another set: look again.
            pending = plan(canonical, await read_history(connection), include_all=include_all)
    return SyncReport(applied=tuple(applied), head=canonical.head)


def _is_complete_table(history: Iterable[AppliedMigration]) -> bool:
    """Tell whether the history's table has all its columns, as far as its rows show."""
    return any(row.name is not None and row.statements is not None for row in history)


async def _apply(
    connection: TenantConnection, migration: Migration, steps: Steps, *, found: Sequence[str]
) -> bool:
    """Apply one file; False when its row was there already and nothing was run."""
    try:
        async with steps.record(Step.APPLY_MIGRATION, migration.version, confirmed=found):
            if migration.transactional:
                await connection.execute(scripts.transaction(migration))
            else:
                await _apply_alone(connection, migration)
    except StatementError as error:
        is_duplicate = belongs_to(error.sqlstate, UNIQUE_VIOLATION)
        if is_duplicate and await _is_recorded(connection, migration):
            return False
        if error.is_passing:
            raise error.to_job_error(migration.file) from error
        place = await _find_place(connection, migration, error)
        raise MigrationFailed(
            error.first_line,
            file=migration.file,
            statement=place.statement,
            line=place.line,
            sqlstate=error.sqlstate,
        ) from error
    except OutcomeUnknown as error:
        # The row is committed with the file, or not at all: it knows what we don't. A script that
        # is still running holds the lock and the key, so that even a repetition is safe.
        if not await _is_recorded(connection, migration):
            raise Transient(f"{migration.file} may not have been applied: {error}") from error
        await steps.confirm(Step.APPLY_MIGRATION, [migration.version])
    return True


async def _apply_alone(connection: TenantConnection, migration: Migration) -> None:
    """Run the file's only statement outside of a transaction, then write its row.

    A crash between the two runs the statement again, so that it should be idempotent.
    """
    await connection.execute(scripts.RESET_SESSION)
    await _drop_invalid_index(connection, migration)
    # Nothing may stand beside it: several statements in one call are one transaction.
    await connection.execute(migration.text)
    await connection.execute(f"{scripts.RESET_SESSION}\n{scripts.record(migration)}")


async def _drop_invalid_index(connection: TenantConnection, migration: Migration) -> None:
    """Clear away what an interrupted build left: `if not exists` would take it for the index."""
    index = concurrent_index(migration.statements[0].text)
    if index is None:
        return
    for row in await connection.fetch(scripts.find_invalid_index(index)):
        if row["is_being_built"]:
            raise Transient(f"{migration.file}: another session is building {row['name']} now")
        await connection.execute(f"drop index concurrently if exists {row['name']}")


async def _find_place(
    connection: TenantConnection, migration: Migration, error: StatementError
) -> Place:
    """Find out which statement of the file failed; an empty place when nothing tells it."""
    head = scripts.transaction_head(migration) if migration.transactional else ""
    if error.position is not None and error.position > len(head):
        return scripts.place_at(migration, error.position - 1 - len(head))
    if not migration.transactional:
        return Place(statement=1, line=migration.statements[0].line)
    try:
        await connection.execute(scripts.trial(migration))
    except StatementError as trial:
        number = scripts.read_mark(trial.message)
        if number is not None and trial.sqlstate == error.sqlstate:
            return Place(statement=number, line=migration.statements[number - 1].line)
    except JobError:
        pass  # the trial only adds to an error that we have already
    return Place()


async def _is_recorded(connection: TenantConnection, migration: Migration) -> bool:
    return any(row.version == migration.version for row in await read_history(connection))


def _applied_migration(row: dict[str, Any]) -> AppliedMigration:
    statements = row["statements"]
    return AppliedMigration(
        version=row["version"],
        name=row["name"],
        statements=None if statements is None else tuple(statements),
    )
