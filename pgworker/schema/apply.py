"""Brings a tenant's schema to the canonical set, one file after the other.

Works over any `TenantConnection`, so it assumes no session between two calls. Safe to repeat from
any line: a file and its row of the history are one transaction, and the history says where to
resume.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pgworker.db.sqlstate import (
    NOT_IN_A_TRANSACTION,
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
from pgworker.schema.grammar import is_setting, read_concurrent_index
from pgworker.schema.migrations import AppliedMigration, plan
from pgworker.schema.scripts import Place
from pgworker.tenants.connection import StatementError, as_job_errors
from pgworker.tenants.steps import NoSteps, Step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from pgworker.schema.migrations import CanonicalSet, Migration
    from pgworker.tenants.connection import TenantConnection
    from pgworker.tenants.steps import Steps


class MigrationNotice(NamedTuple):
    """What a file raised without failing: `raise warning`, `raise notice`, or the server's own."""

    file: str
    severity: str
    message: str


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did.

    Attributes:
        applied: versions that it applied itself, oldest first.
        head: newest version that the tenant has now.
        notices: of the files that it applied; none over the Management API, which passes none on.
    """

    applied: tuple[str, ...]
    head: str | None
    notices: tuple[MigrationNotice, ...] = ()


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
    return tuple(_read_row(row) for row in rows)


async def apply_migrations(
    connection: TenantConnection,
    canonical: CanonicalSet,
    *,
    include_all: bool = False,
    steps: Steps | None = None,
    on_applied: Callable[[Migration], Awaitable[None]] | None = None,
    on_notice: Callable[[MigrationNotice], None] | None = None,
) -> SyncReport:
    """Apply what the tenant lacks. Safe to repeat, and to run twice at once.

    Args:
        connection: to the tenant.
        canonical: the migrations that it should have.
        include_all: also apply a file that is older than the newest applied one.
        steps: the ledger that records each file, before and after.
        on_applied: awaited after each file that this call has applied.
        on_notice: called with each notice or warning, also of a file that fails after it.

    Raises:
        MigrationRefused: set and history don't fit together; nothing was changed.
        MigrationFailed: a statement failed. Its file was rolled back, those before it stay; the
            next sync begins with it.
        Transient: the tenant was busy or couldn't be reached; likewise.
    """
    steps = steps or NoSteps()
    history = await read_history(connection)
    pending = plan(canonical, history, include_all=include_all)
    confirmed = [row.version for row in history]
    if not pending:
        # An earlier attempt may not know the outcome of a file; the history does.
        await steps.confirm(Step.APPLY_MIGRATION, confirmed)
    elif not _is_complete_table(history):
        with as_job_errors("the migration history can't be created"):
            await connection.execute(scripts.CREATE_HISTORY)
    applied: list[str] = []
    notices: list[MigrationNotice] = []
    while pending:
        migration, pending = pending[0], pending[1:]
        try:
            is_ours = await _apply(connection, migration, steps, confirmed=confirmed)
        finally:
            # Also of a file that failed: its warnings often say why.
            notices += _pass_on_notices(connection, migration, on_notice)
        # The first step has recorded them.
        confirmed = []
        if is_ours:
            applied.append(migration.version)
            if on_applied is not None:
                await on_applied(migration)
        else:
            # Another process syncs this tenant too, perhaps with another set: look again.
            pending = plan(canonical, await read_history(connection), include_all=include_all)
    if applied:
        # The caller's connection may serve others after this.
        await _reset_session(connection)
    return SyncReport(applied=tuple(applied), head=canonical.head, notices=tuple(notices))


def _pass_on_notices(
    connection: TenantConnection,
    migration: Migration,
    on_notice: Callable[[MigrationNotice], None] | None,
) -> list[MigrationNotice]:
    """Return what a file raised, after `on_notice` was called with each of it."""
    take: Callable[[], Sequence[tuple[str, str]]] | None
    take = getattr(connection, "take_notices", None)
    raised = [MigrationNotice(migration.file, *each) for each in (take() if take else ())]
    if on_notice is not None:
        for notice in raised:
            on_notice(notice)
    return raised


def _is_complete_table(history: Iterable[AppliedMigration]) -> bool:
    """Return whether the history's table has all its columns, as far as its rows show."""
    # A row without them may be an older CLI's, whose table lacks columns that our insert names.
    return any(row.name is not None and row.statements is not None for row in history)


async def _apply(
    connection: TenantConnection, migration: Migration, steps: Steps, *, confirmed: Sequence[str]
) -> bool:
    """Apply one file; False when its row was there already and nothing was run."""
    await _reset_session(connection)
    try:
        async with steps.record(Step.APPLY_MIGRATION, migration.version, confirmed=confirmed):
            if migration.transactional:
                await connection.execute(scripts.build_transaction(migration))
            else:
                await _run_one_by_one(connection, migration)
    except StatementError as error:
        is_duplicate = belongs_to(error.sqlstate, UNIQUE_VIOLATION)
        if is_duplicate and await _is_recorded(connection, migration):
            # Another sync was faster. Ours failed on the row's key, before the file's statements.
            return False
        if error.is_passing:
            raise error.to_job_error(migration.file) from error
        place = await _find_place(connection, migration, error)
        raise _describe_failure(migration, error, place) from error
    except OutcomeUnknown as error:
        # The row is committed with the file, or not at all, so it shows what happened. A script
        # that is still running holds the lock and the key, so that even a repetition is safe.
        if not await _is_recorded(connection, migration):
            raise Transient(f"{migration.file} may not have been applied: {error}") from error
        await steps.confirm(Step.APPLY_MIGRATION, [migration.version])
    return True


def _describe_failure(migration: Migration, error: StatementError, place: Place) -> MigrationFailed:
    detail = error.first_line
    if belongs_to(error.sqlstate, NOT_IN_A_TRANSACTION) and migration.transactional:
        detail = (
            f"{detail}: move it to a file of its own that begins with the line "
            "-- pgworker: no-transaction"
        )
    return MigrationFailed(
        detail,
        file=migration.file,
        statement=place.statement,
        line=place.line,
        sqlstate=error.sqlstate,
    )


async def _reset_session(connection: TenantConnection) -> None:
    """End whatever an earlier file did to the session.

    In a call of its own: a setting may change how the server reads the next one. Over the
    Management API no session outlives a call.
    """
    if getattr(connection, "keeps_session", True):
        with as_job_errors("the session can't be reset"):
            await connection.execute(scripts.RESET_SESSION)


async def _run_one_by_one(connection: TenantConnection, migration: Migration) -> None:
    """Run the file's statements, each in a transaction of its own, then write its row.

    After a crash in between all of them run again, so that they should be idempotent.

    Raises:
        MigrationFailed: names the statement; those before it stay.
    """
    keeps_session = getattr(connection, "keeps_session", True)
    if keeps_session:
        await connection.execute(scripts.NO_TIMEOUT)
    for number, statement in enumerate(migration.statements, start=1):
        if not keeps_session and is_setting(statement.text):
            continue  # It would end with its own call.
        await _drop_invalid_indexes(connection, migration, statement.text)
        try:
            # A call of its own: several statements in one call are one transaction.
            await connection.execute(statement.text)
        except StatementError as error:
            if error.is_passing:
                raise
            place = Place(statement=number, line=statement.line)
            raise _describe_failure(migration, error, place) from error
    await _reset_session(connection)
    await connection.execute(scripts.build_row_insert(migration))


async def _drop_invalid_indexes(
    connection: TenantConnection, migration: Migration, sql: str
) -> None:
    """Drop what an interrupted build left.

    `if not exists` would take it for the index, and a name that the server chooses would be another
    one for each try.
    """
    index = read_concurrent_index(sql)
    if index is None:
        return
    for row in await connection.fetch(scripts.build_index_search(index)):
        if not index.may_have_left(row["index_name"], row["columns"]):
            continue
        name = row["qualified_name"]
        if row["is_being_built"]:
            raise Transient(f"{migration.file}: another session is building {name} now")
        await connection.execute(f"drop index concurrently if exists {name}")


async def _find_place(
    connection: TenantConnection, migration: Migration, error: StatementError
) -> Place:
    """Find out which statement of the file failed; an empty place when that can't be known."""
    if not migration.transactional:
        return Place()
    head = scripts.build_transaction_head(migration)
    if error.position is not None and error.position > len(head):
        return scripts.find_place(migration, error.position - 1 - len(head))
    return await _find_place_by_trial(connection, migration, error)


async def _find_place_by_trial(
    connection: TenantConnection, migration: Migration, error: StatementError
) -> Place:
    """Run the file again, statement by statement, in a transaction that is never committed."""
    try:
        await connection.execute(scripts.build_trial(migration))
    except StatementError as trial:
        number = scripts.read_mark(trial.message)
        # Another code is another error: the tenant has changed meanwhile.
        if number is not None and trial.sqlstate == error.sqlstate:
            return Place(statement=number, line=migration.statements[number - 1].line)
    except JobError:
        pass  # the file's own error is reported anyway, only without its place
    return Place()


async def _is_recorded(connection: TenantConnection, migration: Migration) -> bool:
    return any(row.version == migration.version for row in await read_history(connection))


def _read_row(row: dict[str, Any]) -> AppliedMigration:
    statements = row["statements"]
    return AppliedMigration(
        version=row["version"],
        name=row["name"],
        statements=None if statements is None else tuple(statements),
    )
