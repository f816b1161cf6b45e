"""The jobs in hand: until when each is surely ours, and what happens when it isn't any more."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgworker.errors import DatabaseUnreachable
from pgworker.queue.lease_timing import LeaseTiming
from pgworker.telemetry import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgworker.db.outage import Outage
    from pgworker.models import Job
    from pgworker.queue.completer import Settlement
    from pgworker.queue.jobs import Jobs

log = get_logger()


@dataclass(slots=True, eq=False)
class Held:
    """A claimed job. It is in line, or carried by a task, or its result is being stored.

    Attributes:
        sure_until: on the monotonic clock; until then nobody else can have claimed it.
        carrier: the task that runs its phase.
        is_ending: its result is being stored, and that tells whether the lease was lost.
        settlement: the result, when no carrier waits for it to be stored.
        is_over: it was let go of; whoever finds it in line leaves it there.
    """

    job: Job
    sure_until: float
    carrier: asyncio.Task[None] | None = None
    is_ending: bool = False
    settlement: Settlement | None = None
    is_over: bool = False


class Leases:
    """Holds the jobs in hand, renews their leases, and stops those whose lease is lost."""

    def __init__(self, jobs: Jobs, outage: Outage, *, freed: Callable[[], None]) -> None:
        """Take the queue; `freed` is called whenever a job was let go of."""
        self._jobs = jobs
        self._outage = outage
        self._timing = LeaseTiming.from_lease(jobs.lease)
        # As seconds of the monotonic clock: added for each claimed job.
        self._lease_seconds = jobs.lease.total_seconds()
        self._freed = freed
        self._held: dict[int, Held] = {}
        self._none_left = asyncio.Event()

    def __len__(self) -> int:
        """Return how many jobs are in hand."""
        return len(self._held)

    def all(self) -> list[Held]:
        """Return what is in hand."""
        return list(self._held.values())

    def take(self, job: Job, *, asked_at: float) -> Held:
        """Hold a job that was claimed with a request sent at `asked_at`."""
        before = self._held.get(job.id)
        if before is not None:
            # Our own lease ran out (a process that was frozen) and we were the first to see it.
            self.stop(before, "this worker claimed the job again")
        held = self._held[job.id] = Held(job, sure_until=asked_at + self._lease_seconds)
        self._none_left.clear()
        return held

    def let_go(self, held: Held) -> None:
        """Hold it no longer: it has ended, waits, or is somebody else's. Safe to repeat."""
        held.is_over = True
        # The two refer to each other, and nobody waits for the garbage collector.
        held.settlement = None
        # A job that was let go of may be due, and claimed again, before its task has ended.
        if self._held.get(held.job.id) is held:
            del self._held[held.job.id]
            if not self._held:
                self._none_left.set()
            self._freed()

    def stop(self, held: Held, reason: str) -> None:
        """Stop whatever is being done with it; nothing more is written for it."""
        if held.is_over or (held.carrier is not None and held.carrier.cancelling()):
            return
        log.warning("lease_lost", job_id=held.job.id, error=reason)
        if held.carrier is not None:
            held.carrier.cancel()
            return
        if held.settlement is not None:
            held.settlement.is_dropped = True
        self.let_go(held)

    @property
    def holds_suspect(self) -> bool:
        """Whether the one job in hand is a suspect, beside which nothing else may be claimed."""
        return len(self._held) == 1 and next(iter(self._held.values())).job.is_suspect

    async def none_left(self) -> None:
        """Return once nothing is in hand."""
        if self._held:
            await self._none_left.wait()

    async def keep(self) -> None:
        """Renew all leases with one statement, until cancelled."""
        pause = self._timing.renew_every
        while True:
            await asyncio.sleep(pause.total_seconds())
            held = self.all()
            asked_at = time.monotonic()
            try:
                not_renewed = await self._jobs.heartbeat(
                    [each.job for each in held], timeout=self._timing.renew_timeout
                )
            except DatabaseUnreachable as error:
                self._outage.failed("heartbeat", error)
                pause = self._timing.retry_every
            else:
                self._outage.over("heartbeat")
                pause = self._timing.renew_every
                for each in held:
                    is_lost = not_renewed.get(each.job.id)
                    if is_lost is None:
                        each.sure_until = asked_at + self._lease_seconds
                    # One that is ending may have ended while the statement was under way.
                    elif is_lost and not each.is_ending:
                        self.stop(each, "somebody else holds the job now")

    async def fence(self) -> None:
        """Stop phases whose lease may be running out, until cancelled. Asks only the clock."""
        margin = self._timing.fence_margin.total_seconds()
        while True:
            await asyncio.sleep(self._timing.fence_every.total_seconds())
            for each in self.all():
                if time.monotonic() > each.sure_until - margin:
                    self.stop(each, "the lease could not be renewed in time")
