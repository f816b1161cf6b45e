"""The worker: claims jobs, keeps their leases, runs their phases, and drains when asked to."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from pgworker import telemetry
from pgworker.db.outage import Outage
from pgworker.db.reconnect import choose_reconnect_delay
from pgworker.errors import DatabaseUnreachable
from pgworker.queue.batching import BatchWindow
from pgworker.queue.completer import Completer
from pgworker.queue.executor import Executor
from pgworker.queue.leases import Leases

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pgworker.db.listen import Listening
    from pgworker.models import Job, Transition
    from pgworker.queue.jobs import Jobs

log = telemetry.get_logger()

# A worker with more slots claims with several statements, so that claims, phases and results
# overlap.
CLAIM_LIMIT = 500
# Something is due that we couldn't claim, twice: another worker is at it, or it is paused.
RECHECK = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker works.

    Attributes:
        workflows: whose jobs it claims.
        concurrency: phases at a time.
        poll: how long it sleeps at most when nothing wakes it.
        backoff, backoff_cap: base and cap of the wait after a failed attempt.
        grace: how long running phases may go on once it drains.
        until_empty: drain when nothing is queued, running or waiting any more.
    """

    workflows: Sequence[str]
    concurrency: int = 20
    poll: timedelta = timedelta(seconds=30)
    backoff: timedelta = timedelta(seconds=2)
    backoff_cap: timedelta = timedelta(seconds=300)
    grace: timedelta = timedelta(seconds=20)
    until_empty: bool = False


@dataclass(slots=True)
class _Signals:
    """What the worker's loop looks at. `wake` is set with each of the others."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    drain: bool = False
    force: bool = False


class Worker:
    """Works jobs off with `run_phase`, which is given a job and returns its transition.

    It knows nothing of what a phase does. Each claim carries a fencing token; every write names
    it, and a write that is refused stops the job's task at once. A worker that can't renew its
    leases stops its phases before the leases run out (self-fencing).
    """

    def __init__(
        self,
        jobs: Jobs,
        run_phase: Callable[[Job], Awaitable[Transition]],
        *,
        settings: WorkerSettings,
        prepare: Callable[[Sequence[Job]], Awaitable[None]] | None = None,
        outage: Outage | None = None,
    ) -> None:
        """Take the queue and the function that runs a phase.

        `prepare` is awaited with jobs that were claimed together before the first of their phases
        begins. It raises nothing. Trouble with the database is reported to `outage`.
        """
        self._jobs = jobs
        self._prepare = prepare
        self._settings = settings
        self._outage = outage or Outage()
        self._signals = _Signals()
        self._more_is_due = False
        self._empty_claims = 0
        self._window = BatchWindow()
        self._leases = Leases(jobs, self._outage, on_freed=self._on_slot_freed)
        self._completer = Completer(jobs, self._outage, jobs_in_hand=self._leases.__len__)
        self._executor = Executor(
            run_phase,
            jobs,
            self._leases,
            self._completer,
            self._outage,
            backoff=settings.backoff,
            backoff_cap=settings.backoff_cap,
            wake=self._signals.wake.set,
        )

    # -- from outside ---------------------------------------------------------------------

    def wake(self) -> None:
        """Look for due jobs now."""
        self._more_is_due = True
        self._signals.wake.set()

    def drain(self) -> None:
        """Claim no more; `run` returns when the phases in hand have ended, or after the grace.

        Called a second time it doesn't wait for them. Unfinished jobs are released unburnt.
        """
        self._signals.force = self._signals.drain
        self._signals.drain = True
        self._signals.wake.set()

    @property
    def is_draining(self) -> bool:
        """Whether it was asked to drain."""
        return self._signals.drain

    async def run(self, listener: Listening | None = None) -> None:
        """Work until `drain` is called, or until there is nothing left (`until_empty`).

        Args:
            listener: wakes the worker; None polls only.

        Raises:
            ExceptionGroup: a loop died. The other loops are cancelled, so that the process ends
                instead of limping on with a part missing.
        """
        async with asyncio.TaskGroup() as loops:
            supporting = [
                loops.create_task(self._completer.run(), name="completer"),
                loops.create_task(self._leases.renew(), name="heartbeat"),
                loops.create_task(self._leases.fence(), name="fence"),
            ]
            if listener is not None:
                supporting.append(loops.create_task(listener.run(), name="listen"))
            async with asyncio.TaskGroup() as tasks:
                await self._claim_until_draining(tasks)
                await self._drain()
            # The last phase has ended: there is nothing left to store, to renew or to wake.
            for task in supporting:
                task.cancel()

    # -- claiming -------------------------------------------------------------------------

    async def _claim_until_draining(self, tasks: asyncio.TaskGroup) -> None:
        failures = 0
        while not self._signals.drain:
            self._signals.wake.clear()
            try:
                timeout = await self._fill_slots(tasks)
                failures = 0
                self._outage.over("claim")
            except DatabaseUnreachable as error:
                self._outage.failed("claim", error)
                failures += 1
                timeout = choose_reconnect_delay(failures)
            if timeout is not None:
                await self._sleep(timeout)
            await self._window.wait(
                self._free_slots,
                lambda: min(self._settings.concurrency, CLAIM_LIMIT),
                can_wait=self._has_unstarted_jobs,
            )

    async def _fill_slots(self, tasks: asyncio.TaskGroup) -> timedelta | None:
        """Claim for the free slots; return how long to sleep at most, None for not at all."""
        free = self._free_slots()
        if free <= 0:
            # Nothing was asked: the slot that is freed first asks.
            self._more_is_due = True
            return self._settings.poll
        limit = min(free, CLAIM_LIMIT)
        claimed = await self._claim(limit, tasks)
        self._more_is_due = claimed == limit
        self._empty_claims = 0 if claimed else self._empty_claims + 1
        if self._more_is_due:
            # Slots beyond one statement's worth are filled while these jobs run.
            return self._settings.poll if limit == free else None
        if not claimed and await self._is_all_done():
            self.drain()
            return None
        return await self._time_until_due()

    async def _claim(self, limit: int, tasks: asyncio.TaskGroup) -> int:
        """Claim up to `limit` jobs and start them; return how many there were."""
        # Before the request: the lease begins when the server answers it, which is later.
        asked_at = time.monotonic()
        jobs = await self._jobs.claim(limit, self._settings.workflows, in_hand=len(self._leases))
        self._window.restart()
        claimed = [self._leases.add(job, asked_at=asked_at) for job in jobs]
        if jobs and self._prepare is not None:
            await self._prepare(jobs)
        for each in claimed:
            self._executor.submit(each)
        self._executor.start(tasks)
        return len(jobs)

    async def _is_all_done(self) -> bool:
        """Return whether nothing is left of what `until_empty` waits for."""
        if not self._settings.until_empty or len(self._leases):
            return False
        return (await self._jobs.outstanding()).live == 0

    def _free_slots(self) -> int:
        if self._leases.holds_suspect:
            return 0
        return self._settings.concurrency - len(self._leases)

    def _has_unstarted_jobs(self) -> bool:
        """Return whether phases wait for the processor already; a drain waits for nothing."""
        return self._executor.has_pending() and not self._signals.drain

    def _on_slot_freed(self) -> None:
        if self._more_is_due or not len(self._leases):
            self._signals.wake.set()

    async def _time_until_due(self) -> timedelta | None:
        """Return how long nothing falls due by itself; None when something has just done so."""
        # The jobs just claimed begin first: none of them waits for this answer.
        await asyncio.sleep(0)
        seconds = await self._jobs.seconds_until_due()
        # No notification says that another worker has finished the last job.
        longest = RECHECK if self._settings.until_empty else self._settings.poll
        if seconds is None or seconds > 0:
            # Nothing was due: a claim that came a moment too early isn't one that found all taken.
            self._empty_claims = 0
            return longest if seconds is None else min(timedelta(seconds=seconds), longest)
        return min(RECHECK, longest) if self._empty_claims > 1 else None

    async def _sleep(self, timeout: timedelta) -> None:
        """Return when the worker is woken, or after the time-out."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout.total_seconds()):
                await self._signals.wake.wait()

    # -- draining -------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Give phases their grace, then stop them and release their jobs."""
        not_begun = self._executor.stop()
        if not_begun:
            await self._executor.release(not_begun)
        if not len(self._leases):
            return
        grace = self._settings.grace
        log.info("drain_started", jobs=len(self._leases), grace_seconds=grace.total_seconds())
        with suppress(TimeoutError):
            async with asyncio.timeout(grace.total_seconds()):
                await self._wait_until_idle()
        await self._release_unfinished()

    async def _wait_until_idle(self) -> None:
        """Return when no job is in hand, or when waiting for them was forbidden."""
        while len(self._leases) and not self._signals.force:
            # Set by the last job that leaves, and by a second `drain`.
            self._signals.wake.clear()
            await self._signals.wake.wait()

    async def _release_unfinished(self) -> None:
        unfinished = self._leases.all()
        tasks = [claimed.task for claimed in unfinished if claimed.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for claimed in unfinished:
            # Written after the release it would be refused, and logged as a lost lease.
            if claimed.pending_write is not None:
                claimed.pending_write.is_cancelled = True
        if unfinished:
            await self._executor.release([claimed.job for claimed in unfinished])
