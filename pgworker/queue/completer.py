"""Stores the results of phases: many with one statement, and one by one when that is refused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

from pgworker.db.translation import concerns_rows, is_lock_timeout
from pgworker.errors import DatabaseUnreachable, LeaseLost, PgworkerError, ResultRefused
from pgworker.models import Advance, Complete, Snooze
from pgworker.queue.batching import BatchWindow
from pgworker.telemetry import get_job_fields, get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pgworker.db.outage import Outage
    from pgworker.models import Job
    from pgworker.queue.jobs import Jobs

log = get_logger()

# A failure is none of them: it is rare, and its answer says which status the job is in now.
BatchedTransition = Advance | Complete | Snooze
NotStored = LeaseLost | ResultRefused
T = TypeVar("T", Advance, Complete, Snooze)

RETRY_AFTER = timedelta(seconds=0.5)
# A larger statement would keep the slots of all its jobs for as long as it takes for all of them.
BATCH_LIMIT = 500
# How often a result is sent by itself when it is refused for a reason that may pass (a deadlock, a
# trigger that gives up). Then it counts as a failed attempt of its job.
TRIES = 3


@dataclass(slots=True)
class PendingWrite:
    """A transition on its way into the database.

    Attributes:
        on_stored: called once: with None when the transition is committed; with the error when
            nothing was written, because another worker holds the job now, or because the database
            refuses this very result.
        is_cancelled: its job is lost or about to be released: it isn't sent (again), and
            `on_stored` isn't called.
        tries: how often it was refused when it was sent by itself.
    """

    job: Job
    transition: BatchedTransition
    on_stored: Callable[[NotStored | None], None]
    is_cancelled: bool = False
    tries: int = 0


class Completer:
    """Collects transitions while a statement is under way; the next statement carries them all.

    So a single transition is stored at once, and a thousand cost one round trip and one commit for
    each kind and `BATCH_LIMIT`. While most jobs in hand still run, the first results wait for a
    moment, so that more of them share a statement.

    When the server refuses a statement because of one of its rows (a trigger or check of the
    platform refuses a client's new values, or another session has locked its row), each of its
    results is sent by itself, beside the batches, which go on.
    """

    def __init__(self, jobs: Jobs, outage: Outage, *, jobs_in_hand: Callable[[], int]) -> None:
        """Take the queue; `jobs_in_hand` returns how many jobs may submit something."""
        self._jobs = jobs
        self._outage = outage
        self._jobs_in_hand = jobs_in_hand
        self._window = BatchWindow()
        self._pending: list[PendingWrite] = []
        self._has_pending = asyncio.Event()
        self._single: list[PendingWrite] = []
        self._has_single = asyncio.Event()

    def submit(
        self, job: Job, transition: BatchedTransition, on_stored: Callable[[NotStored | None], None]
    ) -> PendingWrite:
        """Have the transition stored; return at once."""
        write = PendingWrite(job, transition, on_stored)
        self._pending.append(write)
        self._has_pending.set()
        return write

    async def store(self, job: Job, transition: BatchedTransition) -> None:
        """Return when the transition is committed.

        Raises:
            LeaseLost: another worker holds the job now; nothing was written.
            ResultRefused: the database doesn't take it; nothing was written.
        """
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_stored(error: NotStored | None) -> None:
            if error is None:
                stored.set_result(None)
            else:
                stored.set_exception(error)

        write = self.submit(job, transition, on_stored)
        try:
            await stored
        finally:
            # When the caller was cancelled meanwhile, its future takes no result.
            write.is_cancelled = True

    async def run(self) -> None:
        """Store what is submitted, until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._store_batches(), name="store batches")
            loops.create_task(self._store_singles(), name="store singles")

    async def _store_batches(self) -> None:
        while True:
            await self._has_pending.wait()
            await self._window.wait(
                self._pending.__len__, lambda: min(self._jobs_in_hand(), BATCH_LIMIT)
            )
            self._has_pending.clear()
            all_stored = await self._store(self._next_batch())
            self._window.restart()
            if not self._pending:
                self._outage.over("store results")
            elif all_stored:
                self._has_pending.set()

    def _next_batch(self) -> list[PendingWrite]:
        batch = self._pending[:BATCH_LIMIT]
        del self._pending[:BATCH_LIMIT]
        return [write for write in batch if not write.is_cancelled]

    async def _store(self, batch: Sequence[PendingWrite]) -> bool:
        """Store a batch; return False when a part of it must be sent again, later."""
        stored = [
            await self._store_kind(batch, Complete, self._jobs.complete),
            await self._store_kind(batch, Advance, self._jobs.advance),
            await self._store_kind(batch, Snooze, self._jobs.snooze),
        ]
        return all(stored)

    async def _store_singles(self) -> None:
        while True:
            await self._has_single.wait()
            self._has_single.clear()
            writes, self._single = self._single, []
            for write in writes:
                if not write.is_cancelled and not await self._store_single(write):
                    self._single.append(write)
            if self._single:
                await asyncio.sleep(RETRY_AFTER.total_seconds())
                self._has_single.set()
            else:
                self._outage.over("store a result")

    async def _store_single(self, write: PendingWrite) -> bool:
        """Store one result; return False when it must be sent again, later."""
        try:
            match write.transition:
                case Complete() as complete:
                    refused = await self._jobs.complete([(write.job, complete)])
                case Advance() as advance:
                    refused = await self._jobs.advance([(write.job, advance)])
                case Snooze() as snooze:
                    refused = await self._jobs.snooze([(write.job, snooze)])
        except PgworkerError as error:
            reason = await self._explain(write, error)
            if reason is None:
                return False
            outcome: NotStored | None = reason
        else:
            outcome = _lease_lost(write.job) if refused else None
        if not write.is_cancelled:
            write.on_stored(outcome)
        return True

    async def _explain(self, write: PendingWrite, error: PgworkerError) -> ResultRefused | None:
        """Return why the database doesn't take this result; None when it must be sent again."""
        if not concerns_rows(error) and not isinstance(error, DatabaseUnreachable):
            raise error
        if not isinstance(error, DatabaseUnreachable):
            return ResultRefused(f"the result can't be stored: {error}", may_pass=False)
        if is_lock_timeout(error):
            # The job stays ours, and no other result waits for it: the lock will be released.
            log.warning("result_locked_out", **get_job_fields(write.job), error=str(error))
            return None
        try:
            await self._jobs.heartbeat([], timeout=RETRY_AFTER)
        except DatabaseUnreachable:
            self._outage.failed("store a result", error)
            return None
        # The server takes other writes: it is this one that it doesn't take.
        write.tries += 1
        if write.tries < TRIES:
            return None
        return ResultRefused(f"the result can't be stored: {error}", may_pass=True)

    async def _store_kind(
        self,
        batch: Sequence[PendingWrite],
        kind: type[T],
        statement: Callable[[Sequence[tuple[Job, T]]], Awaitable[set[int]]],
    ) -> bool:
        writes = [write for write in batch if isinstance(write.transition, kind)]
        if not writes:
            return True
        steps = [(write.job, write.transition) for write in writes]
        try:
            refused = await statement(cast("Sequence[tuple[Job, T]]", steps))
        except PgworkerError as error:
            return self._keep(writes, error)
        for write in writes:
            # Cancelled while the statement was under way: its job is no longer in hand.
            if not write.is_cancelled:
                write.on_stored(_lease_lost(write.job) if write.job.id in refused else None)
        return True

    def _keep(self, writes: Sequence[PendingWrite], error: PgworkerError) -> bool:
        """Keep what wasn't stored; return False when it must wait for the database."""
        if concerns_rows(error):
            self._single.extend(writes)
            self._has_single.set()
            return True
        if not isinstance(error, DatabaseUnreachable):
            raise error
        # Sent again: the work is done, and the lease may outlast the outage. When it doesn't, the
        # fence of `Leases` cancels the write.
        self._outage.failed("store results", error)
        self._pending.extend(writes)
        asyncio.get_running_loop().call_later(RETRY_AFTER.total_seconds(), self._has_pending.set)
        return False


def _lease_lost(job: Job) -> LeaseLost:
    return LeaseLost(f"another worker holds job {job.id} now")
