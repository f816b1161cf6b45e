"""A pool of sessions on the tenants' server, for many databases and roles."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from pgworker.errors import JobError
from pgworker.providers.postgres.background import BackgroundTasks
from pgworker.tenants.connection import StatementError
from pgworker.tenants.postgres_connection import PostgresTenantConnection, open_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Of one process, idle sessions included.
MAX_SESSIONS = 10
# The phases of one claim follow each other within milliseconds.
IDLE_TIMEOUT = timedelta(seconds=2)
# A session that hasn't been reset within this time is replaced.
RESET_TIMEOUT = timedelta(seconds=3)

# Resets everything that a session can remember, including its role and advisory locks; and proves
# that the session is alive.
RESET: Final = "discard all"


@dataclass(frozen=True, slots=True)
class _IdleSession:
    """A session that waits for its next user.

    Attributes:
        reset: the task that resets it; its result says whether that worked.
        expiry: closes the session when no user comes.
    """

    dsn: str
    session: PostgresTenantConnection
    reset: asyncio.Task[bool]
    expiry: asyncio.TimerHandle


class SessionPool:
    """Keeps each session for a moment after its use, in case its user comes back.

    Connecting costs more than most of what a phase does afterwards: a process of the server, and
    a password that takes 4096 rounds of hashing. A session has one user at a time, and is reset
    before the next one. A session whose user failed is closed.
    """

    def __init__(
        self, *, max_size: int = MAX_SESSIONS, idle_timeout: timedelta = IDLE_TIMEOUT
    ) -> None:
        """Open no session yet; at most `max_size` will be open."""
        self._max_size = max_size
        self._idle_timeout = idle_timeout.total_seconds()
        self._slots = asyncio.Semaphore(max_size)
        self._in_use = 0
        self._idle: OrderedDict[int, _IdleSession] = OrderedDict()  # oldest first
        self._logins: dict[str, asyncio.Task[None]] = {}
        self._tasks = BackgroundTasks()

    def prewarm(self, dsn: str) -> None:
        """Start to log in for a user who comes soon; that user sees the error of a failed login."""
        if dsn not in self._logins:
            login = self._tasks.start(self._log_in(dsn), name="prewarm a session")
            self._logins[dsn] = login
            login.add_done_callback(lambda _: self._logins.pop(dsn))

    @asynccontextmanager
    async def acquire(
        self, dsn: str, *, fresh: bool = False, keep: bool = True
    ) -> AsyncIterator[PostgresTenantConnection]:
        """Lend a session; wait while too many are in use.

        Args:
            dsn: the role and database.
            fresh: log in, even if an idle session is there.
            keep: for the next user. False where an idle session would be in the way: a database
                can't be copied while a session is connected to it.

        Raises:
            JobError: as `open_postgres`.
        """
        if dsn in self._logins:
            await asyncio.wait([self._logins[dsn]])
        async with self._slots:
            self._in_use += 1
            try:
                session = None if fresh else await self._find_idle(dsn)
                session = session or await self._open(dsn)
                try:
                    yield session
                except BaseException:
                    await session.close()
                    raise
                if keep:
                    self._release(dsn, session)
                else:
                    # No answer is outstanding: the server may learn of the end later.
                    session.terminate()
            finally:
                self._in_use -= 1

    async def aclose(self) -> None:
        """Close all idle sessions, and stop logging in."""
        for login in self._logins.values():
            login.cancel()
        if self._logins:
            await asyncio.wait(self._logins.values())
        while self._idle:
            await self._close_oldest()
        await self._tasks.aclose()

    async def _log_in(self, dsn: str) -> None:
        async with self._slots:
            self._in_use += 1
            try:
                with suppress(JobError):
                    self._release(dsn, await self._open(dsn))
            finally:
                self._in_use -= 1

    async def _find_idle(self, dsn: str) -> PostgresTenantConnection | None:
        """Return an idle session that was reset and still answers."""
        while (idle := self._take_idle(dsn)) is not None:
            is_reset = False
            try:
                async with asyncio.timeout(RESET_TIMEOUT.total_seconds()):
                    is_reset = await idle.reset
            except TimeoutError:
                pass
            finally:
                if not is_reset:
                    idle.session.terminate()
            # A session that the server has closed since, as in a restart, knows that.
            if is_reset and not idle.session.is_closed:
                return idle.session
        return None

    def _take_idle(self, dsn: str) -> _IdleSession | None:
        """Remove an idle session at once: other users come while this one waits for its reset."""
        for key, idle in self._idle.items():
            if idle.dsn == dsn:
                idle.expiry.cancel()
                return self._idle.pop(key)
        return None

    async def _open(self, dsn: str) -> PostgresTenantConnection:
        while self._idle and self._in_use + len(self._idle) > self._max_size:
            # Not `close`: the new session needn't wait for the end of the old one's process.
            self._pop_oldest().session.terminate()
        return await open_postgres(dsn)

    def _release(self, dsn: str, session: PostgresTenantConnection) -> None:
        key = id(session)
        # Reset now, not when it is acquired: by then it has usually been done.
        reset = self._tasks.start(_reset(session), name="reset a session")
        expiry = asyncio.get_running_loop().call_later(self._idle_timeout, self._expire, key)
        self._idle[key] = _IdleSession(dsn, session, reset, expiry)

    def _expire(self, key: int) -> None:
        self._idle.pop(key).session.terminate()

    def _pop_oldest(self) -> _IdleSession:
        _, idle = self._idle.popitem(last=False)
        idle.expiry.cancel()
        return idle

    async def _close_oldest(self) -> None:
        idle = self._pop_oldest()
        done, _ = await asyncio.wait([idle.reset], timeout=RESET_TIMEOUT.total_seconds())
        if done:
            await idle.session.close()
        else:
            idle.session.terminate()


async def _reset(session: PostgresTenantConnection) -> bool:
    """Reset a session for its next user; return whether that worked."""
    try:
        await session.execute(RESET)
    except (StatementError, JobError):
        return False
    return True
