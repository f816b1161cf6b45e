"""The index of `clients` for lists of all of them: built last, without blocking a live table."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import asyncpg

from pgworker.db.adoption.facts import ADOPTION_QUERIES, Table
from pgworker.db.adoption.plan import is_built_concurrently
from pgworker.db.locks import LockWatch, retry_while_locked
from pgworker.db.queries import load
from pgworker.errors import TableLocked

if TYPE_CHECKING:
    from pgworker.db.pool import Connection

# For as long as a build may last. Its waits are bounded otherwise.
BUILD_TIMEOUT: Final = timedelta(hours=6)
DROP_TIMEOUT: Final = timedelta(seconds=5)


class ClientsIndexQueries(NamedTuple):
    """The statements of `sql/queries/clients_index.sql`."""

    state: str
    builder: str
    create: str
    create_concurrently: str
    drop_concurrently: str


CLIENTS_INDEX_QUERIES = load(ClientsIndexQueries, "queries/clients_index.sql")


async def build_index(connection: Connection, watch: LockWatch, *, patience: timedelta) -> bool:
    """Build the index, unless it is there or another session builds it; return whether we did.

    Safe to repeat: what an interrupted build has left is dropped first.

    Raises:
        TableLocked: it could not be built now; everything works without it, but long lists.
    """
    row = await connection.fetchrow(ADOPTION_QUERIES.table_facts)
    if row is None or not row["is_owner"]:
        return False
    if await _is_there(connection, patience):
        return False
    if is_built_concurrently(Table(**dict(row))):
        await _build_concurrently(connection, watch, patience)
    else:
        await _build_at_once(connection, watch, patience)
    return True


async def _build_at_once(connection: Connection, watch: LockWatch, patience: timedelta) -> None:
    async def attempt(limit: timedelta) -> None:
        async with connection.transaction():
            await watch.begin_migration(connection, limit)
            await connection.execute(
                CLIENTS_INDEX_QUERIES.create, timeout=BUILD_TIMEOUT.total_seconds()
            )

    await retry_while_locked(attempt, watch, patience=patience)


async def _build_concurrently(
    connection: Connection, watch: LockWatch, patience: timedelta
) -> None:
    """Build it outside of any transaction: it may wait for long, and blocks no other session.

    Nothing is set for the session, which a pooler may share: so its waits are ended from outside.
    """
    try:
        await watch.during(
            connection.execute(
                CLIENTS_INDEX_QUERIES.create_concurrently, timeout=BUILD_TIMEOUT.total_seconds()
            ),
            pid_query=CLIENTS_INDEX_QUERIES.builder,
            longest_wait=patience,
        )
    except (asyncpg.QueryCanceledError, asyncpg.DeadlockDetectedError) as error:
        # A build that was cancelled leaves an index that every write has to fill.
        with contextlib.suppress(TableLocked):
            if await _is_there(connection, DROP_TIMEOUT):
                return  # another session builds it, or has built it
        why = watch.describe() if watch.blockers else str(error).partition("\n")[0]
        raise TableLocked(
            f"index clients_by_age could not be built: {why}; all else is applied and works: run "
            "pgworker db migrate again later"
        ) from error


async def _is_there(connection: Connection, timeout: timedelta) -> bool:
    """Return whether nothing is left to do; drop what an interrupted build has left.

    In bounded time, because the drop waits for everything that uses the table.
    """
    state = await connection.fetchrow(CLIENTS_INDEX_QUERIES.state)
    if state is None:
        return False
    is_left_over = state["is_of_clients"] and not state["is_valid"]
    if not is_left_over or await connection.fetchval(CLIENTS_INDEX_QUERIES.builder):
        return True
    try:
        await connection.execute(
            CLIENTS_INDEX_QUERIES.drop_concurrently, timeout=timeout.total_seconds()
        )
    except (TimeoutError, asyncpg.QueryCanceledError) as error:
        raise TableLocked(
            "what an interrupted build has left of index clients_by_age can't be dropped now: a "
            "transaction that uses clients is open; run pgworker db migrate again later"
        ) from error
    return False


async def has_index(connection: Connection) -> bool:
    """Return whether the index is there, and whole."""
    state = await connection.fetchrow(CLIENTS_INDEX_QUERIES.state)
    return state is not None and state["is_valid"] and state["is_of_clients"]
