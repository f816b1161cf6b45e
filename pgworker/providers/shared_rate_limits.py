"""The provider's rate limit, shared by all processes through the platform's database."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakValueDictionary

from pgworker.db.queries import load
from pgworker.errors import DatabaseUnreachable
from pgworker.providers.rate_limits import Bucket, OwnLimits, RateLimit, Ticket, used_up
from pgworker.telemetry import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from pgworker.db.pool import Pool
    from pgworker.providers.rate_limits import Window

# A shorter wait is waited out in place: to let a job sleep and claim it again costs more.
PATIENCE_SECONDS: Final = 1.0
# For a connection and for the statement each. The lease that a create was given goes on.
STATEMENT_SECONDS: Final = 3.0

log = get_logger()


class RateLimitQueries(NamedTuple):
    """The statements of `sql/queries/rate_limits.sql`."""

    take: str
    learn: str


RATE_LIMIT_QUERIES = load(RateLimitQueries, "queries/rate_limits.sql")


@dataclass(slots=True, eq=False)
class _Turn:
    """One caller who waits for a statement to ask for it; the statement's word, once it came."""

    ticket: Ticket | None = None
    wait: timedelta | None = None
    error: DatabaseUnreachable | None = None

    @property
    def is_over(self) -> bool:
        return not (self.ticket is None and self.wait is None and self.error is None)


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Line:
    """The callers of one bucket. One of them at a time asks, for all who stand in line."""

    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    turns: list[_Turn] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Tie:
    """A moment by the database's clock, and between which seconds of ours it was."""

    at: datetime
    not_before: float
    not_after: float

    def told_by(self, window: Window) -> tuple[object, ...]:
        """Return a window as the functions take it, on the safe side by both clocks."""
        return (
            window.opened_at,
            window.limit,
            window.used,
            self.at + timedelta(seconds=window.ends_after - self.not_after),
            self.at + timedelta(seconds=window.ends_before - self.not_before),
        )


class SharedLimits:
    """Grants each window of a bucket no more requests than the server does, to all processes.

    Buckets are rows of `pgworker.rate_limits`, kept by the clock of the database; sql/README.md
    tells how. A request costs at most one statement, and under load less: whoever comes while
    one is under way goes along with the next. What answers tell goes along as well.

    A project's bucket is used by the one job that holds its client, so the last answer says all
    there is to know: as long as more than half is left, nobody is asked. Before the first answer
    of a window the database is looked at, and nothing is written there.
    """

    def __init__(self, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the platform's pool; the clock measures how long answers take."""
        self._pool = pool
        self._clock = clock
        self._own = OwnLimits(clock)
        self._tie: _Tie | None = None
        # A line lasts as long as somebody stands in it.
        self._lines: WeakValueDictionary[Bucket, _Line] = WeakValueDictionary()

    async def take(self, bucket: Bucket) -> Ticket:
        """Return the right to send one request; may wait for it, up to a second.

        Raises:
            Throttled: the bucket is empty. The time to wait has been spread out: all who were
                refused come back one after another, as fast as they can be served.
            DatabaseUnreachable: the platform's database can't be asked.
        """
        if not bucket.is_crowded:
            window = self._own.window(bucket)
            if window is not None and window.is_roomy:
                return await self._own.take(bucket)
        impatient_at = self._clock() + PATIENCE_SECONDS
        while True:
            turn = await self._stand_in_line(bucket)
            if turn.ticket is not None:
                return turn.ticket
            assert turn.wait is not None
            if self._clock() + turn.wait.total_seconds() > impatient_at:
                raise used_up(bucket, max(turn.wait, timedelta(seconds=PATIENCE_SECONDS)))
            await asyncio.sleep(turn.wait.total_seconds())

    async def learn(self, ticket: Ticket, answer: RateLimit) -> None:
        """Take in what an answer tells; tell others at once when they should know at once.

        They should when it is the first of its window that reached this process, and when it
        refused us. Everything else goes along with the next `take`.
        """
        await self._own.learn(ticket, answer)
        window = self._own.window(ticket.bucket)
        if window is None or self._tie is None:
            return
        if not answer.is_refusal and (ticket.end_is_known or window.is_reported):
            return
        window.is_reported = True
        bucket = ticket.bucket
        key = (bucket.credential, bucket.scope, bucket.endpoint)
        try:
            async with self._pool.acquire(timeout=STATEMENT_SECONDS) as connection:
                await connection.execute(
                    RATE_LIMIT_QUERIES.learn,
                    *key,
                    *self._tie.told_by(window),
                    timeout=STATEMENT_SECONDS,
                )
        except DatabaseUnreachable as error:
            # The answer itself must not get lost over this: it may be a project's ref.
            log.debug("rate_limit_not_shared", bucket=str(bucket), error=str(error))

    async def _stand_in_line(self, bucket: Bucket) -> _Turn:
        line = self._lines.get(bucket)
        if line is None:
            line = self._lines[bucket] = _Line()
        turn = _Turn()
        line.turns.append(turn)
        try:
            async with line.asking:
                if not turn.is_over:
                    await self._ask_for(bucket, list(line.turns))
        finally:
            line.turns.remove(turn)
        if turn.error is not None:
            raise DatabaseUnreachable(str(turn.error)) from turn.error
        return turn

    async def _ask_for(self, bucket: Bucket, turns: list[_Turn]) -> None:
        """Ask once for all of these; the first in line are served first."""
        turns = [turn for turn in turns if not turn.is_over]
        window = self._own.window(bucket)
        told = self._tie.told_by(window) if window and self._tie else (None,) * 5
        key = (bucket.credential, bucket.scope, bucket.endpoint)
        try:
            async with self._pool.acquire(timeout=STATEMENT_SECONDS) as connection:
                began = self._clock()
                row = await connection.fetchrow(
                    RATE_LIMIT_QUERIES.take,
                    *key,
                    len(turns),
                    bucket.is_crowded or window is not None,
                    *told,
                    timeout=STATEMENT_SECONDS,
                )
        except DatabaseUnreachable as error:
            for turn in turns:
                turn.error = error
            return
        assert row is not None
        now = self._clock()
        self._tie = _Tie(row["asked_at"], not_before=began, not_after=now)
        for place, turn in enumerate(turns):
            if place < row["granted"]:
                turn.ticket = Ticket(bucket, now, row["opened_at"], row["end_is_known"])
            else:
                turn.wait = row["wait"] + row["spread"] * random.random()  # noqa: S311  # jitter
