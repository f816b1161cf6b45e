"""A provider's rate limit, shared by all processes through the platform's database."""

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
from pgworker.providers.rate_limits import Bucket, LocalLimiter, RateLimit, Reservation, used_up
from pgworker.telemetry import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from pgworker.db.pool import Pool
    from pgworker.providers.rate_limits import Window

# A shorter wait happens in place: to put a job to sleep and claim it again costs more.
WAIT_IN_PLACE: Final = timedelta(seconds=1)
# For a connection and for the statement, each: the lease of a create goes on meanwhile.
STATEMENT_SECONDS: Final = 3.0

log = get_logger()


class RateLimitQueries(NamedTuple):
    """The statements of `sql/queries/rate_limits.sql`."""

    reserve: str
    report: str


RATE_LIMIT_QUERIES = load(RateLimitQueries, "queries/rate_limits.sql")


@dataclass(slots=True, eq=False)
class _Call:
    """One caller of `reserve`; one of the three fields is its result, once a statement gave it."""

    reservation: Reservation | None = None
    wait: timedelta | None = None
    error: DatabaseUnreachable | None = None

    @property
    def is_done(self) -> bool:
        return not (self.reservation is None and self.wait is None and self.error is None)


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Batch:
    """The callers of one bucket. One of them at a time runs the statement, for all."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    calls: list[_Call] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _ClockReading:
    """A time of the database's clock, and the seconds of ours between which it was read."""

    at: datetime
    not_before: float
    not_after: float

    def window_arguments(self, window: Window) -> tuple[object, ...]:
        """Return a window as the SQL functions take it, on the safe side by both clocks."""
        return (
            window.opened_at,
            window.limit,
            window.used,
            self.at + timedelta(seconds=window.ends_after - self.not_after),
            self.at + timedelta(seconds=window.ends_before - self.not_before),
        )


class SharedLimiter:
    """Grants all processes together as many requests in a window as the provider does.

    Buckets are rows of `pgworker.rate_limits`, kept by the clock of the database; sql/README.md
    explains how. A request costs at most one statement, and under load less: callers that come
    while a statement runs share the next one. It also carries what responses reported.

    A project's bucket is used only by the job that holds its client, so its last response is
    complete information: while more than half is left, no statement is needed. Before the first
    response of a window the row is read, and nothing is written.
    """

    def __init__(self, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the platform's pool; the clock measures how long responses take."""
        self._pool = pool
        self._clock = clock
        self._local = LocalLimiter(clock)
        self._reading: _ClockReading | None = None
        # A batch exists as long as it has a caller.
        self._batches: WeakValueDictionary[Bucket, _Batch] = WeakValueDictionary()

    async def reserve(self, bucket: Bucket) -> Reservation:
        """Return the right to send one request; may wait for it, up to a second.

        Raises:
            Throttled: the bucket is empty. The time to wait is spread: all refused callers
                come back one after another, as fast as they can be served.
            DatabaseUnreachable: the platform's database didn't answer.
        """
        if not bucket.is_contended:
            window = self._local.window(bucket)
            if window is not None and window.is_half_free:
                return await self._local.reserve(bucket)
        give_up_at = self._clock() + WAIT_IN_PLACE.total_seconds()
        while True:
            call = await self._call(bucket)
            if call.reservation is not None:
                return call.reservation
            assert call.wait is not None
            if self._clock() + call.wait.total_seconds() > give_up_at:
                raise used_up(bucket, max(call.wait, WAIT_IN_PLACE))
            await asyncio.sleep(call.wait.total_seconds())

    async def report(self, reservation: Reservation, reported: RateLimit) -> None:
        """Apply what a response reports; inform other processes when they should know at once.

        They should when it is the first response of its window that reached this process, and when
        it refused us. Every other report is sent with the next `reserve`.
        """
        await self._local.report(reservation, reported)
        window = self._local.window(reservation.bucket)
        if window is None or self._reading is None:
            return
        if not reported.is_refusal and (reservation.end_is_known or window.is_shared):
            return
        window.is_shared = True
        bucket = reservation.bucket
        try:
            async with self._pool.acquire(timeout=STATEMENT_SECONDS) as connection:
                await connection.execute(
                    RATE_LIMIT_QUERIES.report,
                    *_key(bucket),
                    *self._reading.window_arguments(window),
                    timeout=STATEMENT_SECONDS,
                )
        except DatabaseUnreachable as error:
            # The response itself must not get lost over this: it may have a project's ref.
            log.debug("rate_limit_not_shared", bucket=str(bucket), error=str(error))

    async def _call(self, bucket: Bucket) -> _Call:
        """Return the result of a statement, run by this caller or by another one."""
        batch = self._batches.get(bucket)
        if batch is None:
            batch = self._batches[bucket] = _Batch()
        call = _Call()
        batch.calls.append(call)
        try:
            async with batch.lock:
                if not call.is_done:
                    await self._run(bucket, [each for each in batch.calls if not each.is_done])
        finally:
            batch.calls.remove(call)
        if call.error is not None:
            raise DatabaseUnreachable(str(call.error)) from call.error
        return call

    async def _run(self, bucket: Bucket, calls: list[_Call]) -> None:
        """Reserve for all of these callers with one statement; the first ones are served first."""
        window, reading = self._local.window(bucket), self._reading
        reported = reading.window_arguments(window) if window and reading else (None,) * 5
        try:
            async with self._pool.acquire(timeout=STATEMENT_SECONDS) as connection:
                began = self._clock()
                row = await connection.fetchrow(
                    RATE_LIMIT_QUERIES.reserve,
                    *_key(bucket),
                    len(calls),
                    bucket.is_contended or window is not None,
                    *reported,
                    timeout=STATEMENT_SECONDS,
                )
        except DatabaseUnreachable as error:
            for call in calls:
                call.error = error
            return
        assert row is not None
        now = self._clock()
        self._reading = _ClockReading(row["asked_at"], not_before=began, not_after=now)
        granted, refused = calls[: row["granted"]], calls[row["granted"] :]
        for call in granted:
            call.reservation = Reservation(bucket, now, row["opened_at"], row["end_is_known"])
        for call in refused:
            call.wait = row["wait"] + row["spread"] * random.random()  # noqa: S311  # jitter


def _key(bucket: Bucket) -> tuple[str, str, str]:
    return bucket.credential, bucket.scope, bucket.endpoint
