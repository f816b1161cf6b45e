"""The jobs in hand: how long each is surely ours, and what happens when it isn't any more."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgworker.errors import DatabaseUnreachable
from pgworker.queue.lease_timing import LeaseTiming
from pgworker.telemetry import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pgworker.db.outage import Outage
    from pgworker.models import Job
    from pgworker.queue.completer import PendingWrite
    from pgworker.queue.jobs import Jobs

log = get_logger()


# Compared by identity: the same job may be claimed again while its former claim is given up.
@dataclass(slots=True, eq=False)
class ClaimedJob:
    """A job in hand. It is pending, then run by a task, then its result is being stored.

    Attributes:
        lease_deadline: on the monotonic clock; before it no other worker can have claimed the job.
        task: runs its phase; None before and after that.
        is_ending: its result is being stored. The answer to that says whether the lease was lost;
            a heartbeat that names the job as lost may only have come after the result.
        pending_write: the result, when no task waits for it to be stored.
        is_done: it is no longer in hand. The executor skips it if it is still pending.
    """

    job: Job
    lease_deadline: float
    task: asyncio.Task[None] | None = None
    is_ending: bool = False
    pending_write: PendingWrite | None = None
    is_done: bool = False


class Leases:
    """Holds the jobs in hand, renews their leases, and stops the jobs whose lease is lost."""

    def __init__(self, jobs: Jobs, outage: Outage, *, on_freed: Callable[[], None]) -> None:
        """Take the queue; `on_freed` is called after each job that leaves."""
        self._jobs = jobs
        self._outage = outage
        self._on_freed = on_freed
        self._timing = LeaseTiming.from_lease(jobs.lease)
        # Once, and not for each claimed job.
        self._lease_seconds = jobs.lease.total_seconds()
        self._claimed: dict[int, ClaimedJob] = {}

    def __len__(self) -> int:
        """Return how many jobs are in hand."""
        return len(self._claimed)

    @property
    def holds_suspect(self) -> bool:
        """Whether the one job in hand is a suspect, beside which nothing else may be claimed."""
        return len(self._claimed) == 1 and next(iter(self._claimed.values())).job.is_suspect

    def all(self) -> list[ClaimedJob]:
        """Return the jobs in hand."""
        return list(self._claimed.values())

    def add(self, job: Job, *, asked_at: float) -> ClaimedJob:
        """Hold a job whose claim was sent at `asked_at` (monotonic): the lease began later."""
        before = self._claimed.get(job.id)
        if before is not None:
            # Our own lease ran out (a process that was frozen) and we were the first to see it.
            self.stop(before, "this worker claimed the job again")
        claimed = ClaimedJob(job, lease_deadline=asked_at + self._lease_seconds)
        self._claimed[job.id] = claimed
        return claimed

    def discard(self, claimed: ClaimedJob) -> None:
        """Hold the job no longer: it has ended, waits, or belongs to another worker.

        Safe to repeat.
        """
        claimed.is_done = True
        # The write's callback refers to the job: without the circle both are freed at once, and
        # not when the garbage collector comes.
        claimed.pending_write = None
        # The job may have been due, and claimed again, before the task of this claim has ended.
        if self._claimed.get(claimed.job.id) is claimed:
            del self._claimed[claimed.job.id]
            self._on_freed()

    def stop(self, claimed: ClaimedJob, reason: str) -> None:
        """Cancel the job's phase, or its write: nothing more is written under this claim."""
        task = claimed.task
        if claimed.is_done or (task is not None and task.cancelling()):
            return
        log.warning("lease_lost", job_id=claimed.job.id, error=reason)
        if task is not None:
            # It discards the job when it has ended: its slot isn't free before.
            task.cancel()
            return
        if claimed.pending_write is not None:
            claimed.pending_write.is_cancelled = True
        self.discard(claimed)

    async def renew(self) -> None:
        """Renew all leases with one statement each time, until cancelled."""
        pause = self._timing.renew_every
        while True:
            await asyncio.sleep(pause.total_seconds())
            claimed = self.all()
            asked_at = time.monotonic()
            try:
                not_renewed = await self._jobs.heartbeat(
                    [each.job for each in claimed], timeout=self._timing.renew_timeout
                )
            except DatabaseUnreachable as error:
                self._outage.failed("heartbeat", error)
                pause = self._timing.retry_every
            else:
                self._outage.over("heartbeat")
                pause = self._timing.renew_every
                self._note_renewed(claimed, not_renewed, asked_at=asked_at)

    def _note_renewed(
        self, claimed: Sequence[ClaimedJob], not_renewed: Mapping[int, bool], *, asked_at: float
    ) -> None:
        for each in claimed:
            is_lost = not_renewed.get(each.job.id)
            if is_lost is None:
                each.lease_deadline = asked_at + self._lease_seconds
            elif is_lost and not each.is_ending:
                self.stop(each, "another worker holds the job now")

    async def fence(self) -> None:
        """Stop jobs whose lease may be running out, until cancelled. Asks only the clock.

        Separate from `renew`, which may be waiting for a server that doesn't answer.
        """
        margin = self._timing.fence_margin.total_seconds()
        while True:
            await asyncio.sleep(self._timing.fence_every.total_seconds())
            now = time.monotonic()
            for each in self.all():
                if now > each.lease_deadline - margin:
                    self.stop(each, "the lease could not be renewed in time")
