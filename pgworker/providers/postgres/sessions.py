"""Sessions on the tenants' server: never more than a few, each kept for a moment after its use."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from pgworker.errors import JobError
from pgworker.tenants.connection import StatementError
from pgworker.tenants.postgres_connection import PostgresTenantConnection, open_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Of one process, those included that are kept.
SESSIONS_AT_ONCE = 10
# The phases of one claim follow each other within milliseconds.
KEPT_FOR = timedelta(seconds=2)
# How soon one that was kept must have answered before it is lent again.
SIGN_OF_LIFE = timedelta(seconds=3)

# Everything that a session can remember, a role or an advisory lock too; and a sign of life.
CLEAN_UP: Final = "discard all"


@dataclass(frozen=True, slots=True)
class _Kept:
    dsn: str
    session: PostgresTenantConnection
    is_as_new: asyncio.Task[bool]
    until: asyncio.TimerHandle


class Sessions:
    """Lends sessions, one user at a time.

    Connecting costs more than most of what a phase does then (a process of the server, a password
    that takes 4096 rounds of hashing): whoever comes back at once finds the session still there, as
    good as new. One whose user failed is closed.
    """

    def __init__(self, *, at_once: int = SESSIONS_AT_ONCE, kept_for: timedelta = KEPT_FOR) -> None:
        """Open nothing yet; `at_once` is the most that will be open."""
        self._at_once = at_once
        self._kept_for = kept_for.total_seconds()
        self._slots = asyncio.Semaphore(at_once)
        self._in_use = 0
        self._kept: OrderedDict[int, _Kept] = OrderedDict()  # oldest first
        self._expected: dict[str, asyncio.Task[None]] = {}

    def expect(self, dsn: str) -> None:
        """Begin to log in for somebody who comes soon; what goes wrong is told when they come."""
        if dsn not in self._expected:
            login = asyncio.create_task(self._log_in(dsn), name="expected session")
            self._expected[dsn] = login
            login.add_done_callback(lambda _: self._expected.pop(dsn))

    @asynccontextmanager
    async def lend(
        self, dsn: str, *, fresh: bool = False, keep: bool = True
    ) -> AsyncIterator[PostgresTenantConnection]:
        """Lend a session; wait while too many are in use.

        Args:
            dsn: whom to be, and where.
            fresh: log in, even if a session is there.
            keep: for who comes next. Not where a session would be in the way: a database that
                somebody is in can't be copied.

        Raises:
            JobError: as `connect_postgres`.
        """
        if dsn in self._expected:
            await asyncio.wait([self._expected[dsn]])
        async with self._slots:
            self._in_use += 1
            try:
                session = None if fresh else await self._find(dsn)
                session = session or await self._open(dsn)
                try:
                    yield session
                except BaseException:
                    await session.close()
                    raise
                if keep:
                    self._keep(dsn, session)
                else:
                    # Its user has all answers.
                    session.terminate()
            finally:
                self._in_use -= 1

    async def aclose(self) -> None:
        """Close what is kept, and what would be."""
        for login in tuple(self._expected.values()):
            login.cancel()
        if self._expected:
            await asyncio.wait(self._expected.values())
        while self._kept:
            await self._close_oldest()

    async def _log_in(self, dsn: str) -> None:
        async with self._slots:
            self._in_use += 1
            try:
                with suppress(JobError):
                    self._keep(dsn, await self._open(dsn))
            finally:
                self._in_use -= 1

    async def _find(self, dsn: str) -> PostgresTenantConnection | None:
        """Return one that was kept and still answers."""
        while (kept := self._take(dsn)) is not None:
            is_as_new = False
            try:
                async with asyncio.timeout(SIGN_OF_LIFE.total_seconds()):
                    is_as_new = await kept.is_as_new
            except TimeoutError:
                pass
            finally:
                if not is_as_new:
                    kept.session.terminate()
            # One that was cut off meanwhile, as by a restart, has told so.
            if is_as_new and not kept.session.is_closed:
                return kept.session
        return None

    def _take(self, dsn: str) -> _Kept | None:
        """Take one out of those that are kept. Others do so while we wait for its answer."""
        for key, kept in self._kept.items():
            if kept.dsn == dsn:
                kept.until.cancel()
                return self._kept.pop(key)
        return None

    async def _open(self, dsn: str) -> PostgresTenantConnection:
        while self._kept and self._in_use + len(self._kept) > self._at_once:
            # Nobody waits for the server's process to end.
            self._take_oldest().session.terminate()
        return await open_postgres(dsn)

    def _keep(self, dsn: str, session: PostgresTenantConnection) -> None:
        key = id(session)
        # At once: who comes back finds it done.
        is_as_new = asyncio.create_task(_clean_up(session), name="session clean-up")
        until = asyncio.get_running_loop().call_later(self._kept_for, self._let_go, key)
        self._kept[key] = _Kept(dsn, session, is_as_new, until)

    def _let_go(self, key: int) -> None:
        self._kept.pop(key).session.terminate()

    def _take_oldest(self) -> _Kept:
        _, kept = self._kept.popitem(last=False)
        kept.until.cancel()
        return kept

    async def _close_oldest(self) -> None:
        kept = self._take_oldest()
        done, _ = await asyncio.wait([kept.is_as_new], timeout=SIGN_OF_LIFE.total_seconds())
        if done:
            await kept.session.close()
        else:
            kept.session.terminate()


async def _clean_up(session: PostgresTenantConnection) -> bool:
    """Make it as good as new; tell whether that was possible."""
    try:
        await session.execute(CLEAN_UP)
    except (StatementError, JobError):
        return False
    return True
