"""Locks that a statement of ours waits for: which sessions hold them, and for how long we wait."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import asyncpg

from pgworker.db.pool import connected
from pgworker.db.queries import load
from pgworker.db.translation import DATABASE_ERRORS
from pgworker.errors import PgworkerError, TableLocked
from pgworker.telemetry import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from pgworker.db.pool import Connection

T = TypeVar("T")

# What waits less isn't watched: that costs a connection.
LOOK_EVERY: Final = timedelta(milliseconds=250)
FIRST_WAIT: Final = timedelta(milliseconds=500)
LONGEST_WAIT: Final = timedelta(seconds=4)
ADVICE: Final = (
    "end it (select pg_terminate_backend(PID)) or wait, then run pgworker db migrate again: "
    "it goes on where it was"
)

log = get_logger()


class LockQueries(NamedTuple):
    """The statements of `sql/queries/locks.sql`."""

    migration_lock: str
    limit_waits: str
    blockers: str
    cancel: str


LOCK_QUERIES = load(LockQueries, "queries/locks.sql")


class Blocker(NamedTuple):
    """A session that keeps a statement of ours waiting, as far as our role may see it.

    Attributes:
        relation: whose lock we wait for; None when it is the end of its transaction.
        pid: 0 for a prepared transaction, which has no session.
        since: when its transaction began.
        statement: the first word of its newest one.
    """

    relation: str | None
    pid: int
    application: str | None
    role: str | None
    backend_type: str | None
    state: str | None
    since: datetime | None
    seconds: float | None
    statement: str | None

    def __str__(self) -> str:
        if self.pid == 0:
            return "a prepared transaction (select * from pg_prepared_xacts)"
        is_client = self.backend_type in (None, "client backend")
        who = self.application if is_client else self.backend_type
        named = f"pid {self.pid} ({who or 'without a name'}, role {self.role or 'unknown'})"
        if self.since is None:
            return named
        is_idle = (self.state or "").startswith("idle")
        doing = "idle after" if is_idle else "running"
        return (
            f"{named}, in a transaction since {self.since:%H:%M:%S} UTC ({self.seconds:.0f} s), "
            f"{doing} {self.statement or 'a statement'}"
        )


class LockWatch:
    """Looks, over a connection of its own, which sessions keep ours waiting.

    Attributes:
        pid: of our session, once it is known; behind a pooler each transaction has another.
        blockers: those of the newest look that found any.
    """

    def __init__(self, dsn: str | None) -> None:
        """Take the database's URL; without one no session is named."""
        self._dsn = dsn
        self.pid: int | None = None
        self.blockers: tuple[Blocker, ...] = ()

    async def begin_migration(self, connection: Connection, longest_wait: timedelta) -> None:
        """Bound a transaction's waits, learn which session it is, and keep other migrations out."""
        milliseconds = f"{longest_wait.total_seconds() * 1000:.0f}"
        row = await connection.fetchrow(LOCK_QUERIES.limit_waits, milliseconds)
        assert row is not None
        self.pid = row["pid"]
        await connection.execute(LOCK_QUERIES.migration_lock)

    def describe(self) -> str:
        """Return the lock that we wait for, and the sessions that hold it, in words."""
        relations = {blocker.relation for blocker in self.blockers if blocker.relation}
        lock = f"a lock on {', '.join(sorted(relations))}" if relations else "a lock"
        holders = "; ".join(str(blocker) for blocker in self.blockers) or "another session"
        return f"{lock} is held by {holders}"

    async def during(
        self,
        work: Awaitable[T],
        *,
        pid_query: str | None = None,
        longest_wait: timedelta | None = None,
    ) -> T:
        """Await the work, and see meanwhile what its session waits for.

        Args:
            work: statements of one session.
            pid_query: finds the session that does it, where a pooler may have lent another one.
            longest_wait: after which it is cancelled; by default the server's `lock_timeout` does
                that.

        Raises:
            asyncpg.PostgresError, PgworkerError: of the work.
        """
        # Kept, and raised outside: a task group would wrap it.
        failure: Exception | None = None
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._look(pid_query, longest_wait), name="lock watch")
            try:
                result = await work
            except (*DATABASE_ERRORS, PgworkerError) as error:
                failure = error
            watch.cancel()
        if failure is not None:
            raise failure
        return result

    async def _look(self, pid_query: str | None, longest_wait: timedelta | None) -> None:
        await asyncio.sleep(LOOK_EVERY.total_seconds())
        if self._dsn is None:
            return
        try:
            async with connected(self._dsn, application_name="pgworker lock watch") as connection:
                await self._keep_looking(connection, pid_query, longest_wait)
        except PgworkerError as error:
            # The work goes on without being watched.
            log.info("lock_watch_failed", error=str(error))

    async def _keep_looking(
        self,
        connection: asyncpg.Connection,
        pid_query: str | None,
        longest_wait: timedelta | None,
    ) -> None:
        waits_since: float | None = None
        while True:
            if pid_query is not None:
                self.pid = await connection.fetchval(pid_query) or self.pid
            rows = await connection.fetch(LOCK_QUERIES.blockers, self.pid)
            if rows:
                self.blockers = tuple(Blocker(**dict(row)) for row in rows)
            now = time.monotonic()
            waits_since = (waits_since or now) if rows else None
            if longest_wait and waits_since and now - waits_since > longest_wait.total_seconds():
                await connection.execute(LOCK_QUERIES.cancel, self.pid)
            await asyncio.sleep(LOOK_EVERY.total_seconds())


async def retry_while_locked(
    attempt: Callable[[timedelta], Awaitable[T]], watch: LockWatch, *, patience: timedelta
) -> T:
    """Return what an attempt returns; repeat it, for a while, as long as it can't get its locks.

    Args:
        attempt: takes how long it may wait for each lock. Everything that asks for a lock of the
            table queues up behind one that waits, so that this is short, and between two attempts
            they have their turn. Longer than `deadlock_timeout` (1 s) later on: only then does an
            autovacuum make way.
        watch: of the session that attempts it.
        patience: for all attempts.

    Raises:
        TableLocked: it never got its locks; names who holds them.
    """
    gives_up_at = time.monotonic() + patience.total_seconds()
    limit = FIRST_WAIT
    while True:
        try:
            return await watch.during(attempt(limit))
        except (asyncpg.PostgresError, PgworkerError) as error:
            if not _is_about_locks(error):
                raise
            if time.monotonic() >= gives_up_at:
                raise TableLocked(f"{watch.describe()}; {ADVICE}") from error
        log.info("lock_awaited", reason=watch.describe())
        await asyncio.sleep(random.uniform(0.5, 1) * limit.total_seconds())  # noqa: S311  # jitter
        limit = min(2 * limit, LONGEST_WAIT)


def _is_about_locks(error: Exception) -> bool:
    cause = error.__cause__ if isinstance(error, PgworkerError) else error
    return isinstance(cause, asyncpg.LockNotAvailableError | asyncpg.DeadlockDetectedError)
