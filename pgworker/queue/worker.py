"""The worker: claims jobs, keeps their leases, runs their phases, leaves when told to."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from pgworker import telemetry
from pgworker.db.outage import Outage
from pgworker.db.reconnect import reconnect_delay
from pgworker.errors import DatabaseUnreachable
from pgworker.queue.batching import Pace
from pgworker.queue.completer import Settling
from pgworker.queue.executor import Carriers
from pgworker.queue.leases import Leases

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pgworker.db.listen import Listening
    from pgworker.models import Job, Transition
    from pgworker.queue.jobs import Jobs

log = telemetry.get_logger()

# More than one statement's worth of slots lets claims, phases and results overlap.
CLAIMED_AT_ONCE = 500
# Something is due that we couldn't claim, twice: another worker is at it, or it is paused.
RECHECK = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker works.

    Attributes:
        concurrency: phases at a time.
        poll: how often it looks even if nobody wakes it.
        backoff, backoff_cap: base and cap of the wait after a failed attempt.
        grace: how long running phases may go on once it drains.
        until_empty: leave when nothing is queued, running or waiting any more.
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
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)


class Worker:
    """Works jobs off with `run_phase`, which is handed a job and returns what becomes of it.

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
        """Take the queue and what a phase does; `outage` is told of trouble with the database.

        `prepare` is awaited with jobs that were claimed together before the first of their phases
        begins. It raises nothing.
        """
        self._jobs = jobs
        self._prepare = prepare
        self._settings = settings
        self._outage = outage or Outage()
        self._signals = _Signals()
        self._more_is_due = False
        self._claims_in_vain = 0
        self._pace = Pace()
        self._leases = Leases(jobs, self._outage, freed=self._slot_is_free)
        self._settling = Settling(jobs, self._outage, in_hand=self._leases.__len__)
        self._carriers = Carriers(
            run_phase,
            jobs,
            self._leases,
            self._settling,
            self._outage,
            backoff=settings.backoff,
            backoff_cap=settings.backoff_cap,
            look_again=self._signals.wake.set,
        )

    # -- from outside ---------------------------------------------------------------------

    def wake(self) -> None:
        """Look for due jobs now."""
        self._more_is_due = True
        self._signals.wake.set()

    def drain(self) -> None:
        """Claim no more; `run` returns when the phases in hand have ended, or after the grace.

        Called a second time it doesn't wait for them. What is unfinished is released unburnt.
        """
        if self._signals.draining.is_set():
            self._signals.hurry.set()
        self._signals.draining.set()
        self._signals.wake.set()

    @property
    def is_draining(self) -> bool:
        """Whether it has been told to leave."""
        return self._signals.draining.is_set()

    async def run(self, listener: Listening | None = None) -> None:
        """Work until `drain` is called, or until there is nothing left (`until_empty`).

        Args:
            listener: wakes the worker; None polls only.

        Raises:
            ExceptionGroup: a loop died. Its neighbours are cancelled, so that the process ends
                instead of limping on with a part missing.
        """
        async with asyncio.TaskGroup() as loops:
            supporting = [
                loops.create_task(self._settling.run(), name="settling"),
                loops.create_task(self._leases.keep(), name="heartbeat"),
                loops.create_task(self._leases.fence(), name="fence"),
            ]
            if listener is not None:
                supporting.append(loops.create_task(listener.run(), name="listen"))
            async with asyncio.TaskGroup() as carriers:
                await self._claim_until_draining(carriers)
                await self._wind_down()
            # The last phase has ended: nothing is left to hear or to keep alive.
            for task in supporting:
                task.cancel()

    # -- claiming -------------------------------------------------------------------------

    async def _claim_until_draining(self, carriers: asyncio.TaskGroup) -> None:
        failures = 0
        while not self._signals.draining.is_set():
            self._signals.wake.clear()
            try:
                timeout = await self._claim_once(carriers)
                failures = 0
                self._outage.over("claim")
            except DatabaseUnreachable as error:
                self._outage.failed("claim", error)
                failures += 1
                timeout = reconnect_delay(failures)
            if timeout is not None:
                await self._sleep(timeout)
            await self._pace.keep(
                self._free_slots,
                lambda: min(self._settings.concurrency, CLAIMED_AT_ONCE),
                is_supplied=self._is_supplied,
            )

    async def _claim_once(self, carriers: asyncio.TaskGroup) -> timedelta | None:
        """Claim for the free slots; return how long to sleep at most, None for not at all."""
        free = self._free_slots()
        if free <= 0:
            self._more_is_due = True
            return self._settings.poll
        limit = min(free, CLAIMED_AT_ONCE)
        asked_at = time.monotonic()
        claimed = await self._jobs.claim(
            limit,
            self._settings.workflows,
            in_hand=len(self._leases),
        )
        self._pace.mark()
        held = [self._leases.take(job, asked_at=asked_at) for job in claimed]
        if claimed and self._prepare is not None:
            await self._prepare(claimed)
        for each in held:
            self._carriers.put(each)
        self._carriers.start(carriers)
        self._more_is_due = len(claimed) == limit
        self._claims_in_vain = 0 if claimed else self._claims_in_vain + 1
        if self._more_is_due:
            # Beyond one statement's worth the next is asked for while these are carried.
            return self._settings.poll if limit == free else None
        if self._settings.until_empty and not claimed and not len(self._leases):
            outstanding = await self._jobs.outstanding()
            if outstanding.live == 0:
                self.drain()
                return None
        return await self._time_until_due()

    def _free_slots(self) -> int:
        if self._leases.holds_suspect:
            return 0
        return self._settings.concurrency - len(self._leases)

    def _is_supplied(self) -> bool:
        """Return whether phases wait for the processor already; a drain waits for nothing."""
        return self._carriers.has_more() and not self._signals.draining.is_set()

    def _slot_is_free(self) -> None:
        if self._more_is_due or not len(self._leases):
            self._signals.wake.set()

    async def _time_until_due(self) -> timedelta | None:
        """Return how long nothing falls due by itself; None when something has just done so."""
        # What was just claimed begins first: nobody waits for this answer.
        await asyncio.sleep(0)
        seconds = await self._jobs.seconds_until_due()
        # Who waits for the queue to be empty isn't told when another worker finishes a job.
        longest = RECHECK if self._settings.until_empty else self._settings.poll
        if seconds is None or seconds > 0:
            # Nothing was left behind: who comes back a moment too early isn't refused.
            self._claims_in_vain = 0
            return longest if seconds is None else min(timedelta(seconds=seconds), longest)
        return min(RECHECK, longest) if self._claims_in_vain > 1 else None

    async def _sleep(self, timeout: timedelta) -> None:
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await self._signals.wake.wait()
        except TimeoutError:
            return

    # -- leaving --------------------------------------------------------------------------

    async def _wind_down(self) -> None:
        """Give phases their grace, then stop them and release their jobs."""
        unbegun = self._carriers.stop()
        if unbegun:
            await self._carriers.release(unbegun)
        if not len(self._leases):
            return
        grace = self._settings.grace.total_seconds()
        log.info("drain_started", jobs=len(self._leases), grace_seconds=grace)
        hurry = asyncio.ensure_future(self._signals.hurry.wait())
        finished = asyncio.ensure_future(self._leases.none_left())
        await asyncio.wait({hurry, finished}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        finished.cancel()
        unfinished = self._leases.all()
        carriers = [held.carrier for held in unfinished if held.carrier is not None]
        for carrier in carriers:
            carrier.cancel()
        if carriers:
            await asyncio.wait(carriers)
        for held in unfinished:
            if held.settlement is not None:
                held.settlement.is_dropped = True
        if unfinished:
            await self._carriers.release([held.job for held in unfinished])
