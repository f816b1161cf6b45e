"""Carries jobs through their phases: runs each, and has its result stored."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from opentelemetry.trace import Status, StatusCode

from pgworker import telemetry
from pgworker.errors import DatabaseUnreachable, JobError, LeaseLost
from pgworker.models import Advance, Complete, Failure, Job, Snooze, Transition
from pgworker.queue.completer import RETRY_AFTER
from pgworker.queue.policy import after_bug, after_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pgworker.db.outage import Outage
    from pgworker.queue.completer import Settling
    from pgworker.queue.jobs import Jobs
    from pgworker.queue.leases import Held, Leases

# Jobs whose phases never wait are carried one after the other; after so long others get a turn.
TURN_SECONDS = 0.005


class Carriers:
    """Tasks that carry jobs.

    A carrier takes a job from the line, runs its phases, and goes on with the next one. As long
    as jobs are in line one more carrier is about to start, and it starts when the present one
    waits for something: there are as many tasks as phases that wait, and none for those that don't.
    """

    def __init__(
        self,
        run_phase: Callable[[Job], Awaitable[Transition]],
        jobs: Jobs,
        leases: Leases,
        settling: Settling,
        outage: Outage,
        *,
        backoff: timedelta,
        backoff_cap: timedelta,
        look_again: Callable[[], None],
    ) -> None:
        """Take what runs a phase; `look_again` is called when a job begins to wait."""
        self._run_phase = run_phase
        self._jobs = jobs
        self._leases = leases
        self._settling = settling
        self._outage = outage
        self._backoff = backoff
        self._backoff_cap = backoff_cap
        self._look_again = look_again
        # Bound once: the proxy would look up the configuration for each line.
        self._log = telemetry.get_logger().bind()
        self._line: deque[Held] = deque()
        # The one that is about to start.
        self._next: asyncio.Task[None] | None = None
        self._stopped = False
        self._is_traced = True

    def put(self, held: Held) -> None:
        """Put a job in line."""
        self._line.append(held)

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """See to it that somebody carries what is in line."""
        if self._next is not None or not self._line:
            return
        carrying = self._carry(tasks)
        try:
            self._next = tasks.create_task(carrying, name="carrier")
        except RuntimeError:
            # The group takes nobody any more: a loop of the worker has died, and that ends it.
            carrying.close()
            return
        self._next.add_done_callback(partial(self._replace, tasks))

    def has_more(self) -> bool:
        """Return whether jobs are in line."""
        return bool(self._line)

    def stop(self) -> list[Job]:
        """Take no more jobs from the line; return those that were in it."""
        self._stopped = True
        left = [held for held in self._line if not held.is_over]
        self._line.clear()
        for held in left:
            self._leases.let_go(held)
        return [held.job for held in left]

    async def release(self, jobs: Sequence[Job]) -> None:
        """Give jobs back unburnt."""
        try:
            await self._jobs.release(jobs)
        except DatabaseUnreachable as error:
            # Their leases run out by themselves.
            self._log.warning("release_failed", jobs=len(jobs), error=str(error))
        else:
            self._log.info("jobs_released", jobs=len(jobs))

    # -- a carrier ------------------------------------------------------------------------

    async def _carry(self, tasks: asyncio.TaskGroup) -> None:
        self._next = None
        self._is_traced = telemetry.is_tracing()
        turn_ends = time.monotonic() + TURN_SECONDS
        while self._line:
            held = self._line.popleft()
            if held.is_over:
                continue
            self.start(tasks)
            held.carrier = asyncio.current_task()
            try:
                await self._finish(held)
            finally:
                held.carrier = None
                if held.settlement is None:
                    self._leases.let_go(held)
            if time.monotonic() > turn_ends:
                # The next one is about to start.
                return

    def _replace(self, tasks: asyncio.TaskGroup, carrier: asyncio.Task[None]) -> None:
        """Let another carrier start in the place of one that was cancelled before it began."""
        if self._next is carrier:
            self._next = None
            self.start(tasks)

    async def _finish(self, held: Held) -> None:
        """Run phase after phase, until the job ends, waits, or is no longer ours."""
        try:
            while True:
                job = held.job
                telemetry.bind_job(job)
                transition = await self._attempt(job)
                match transition:
                    case Advance():
                        await self._settling.store(job, transition)
                        held.job = _following(job, transition)
                        if job.is_suspect:
                            # It has survived the phase: others may be claimed beside it now.
                            self._look_again()
                        if self._stopped:
                            await self.release([held.job])
                            return
                    case Failure():
                        held.is_ending = True
                        await self._store_failure(job, transition)
                        return
                    case _:
                        self._hand_in(held, transition)
                        return
        except LeaseLost as error:
            self._log.warning("lease_lost", error=str(error))

    async def _attempt(self, job: Job) -> Transition:
        """Run the job's present phase once; every error becomes a transition here."""
        began = time.monotonic()
        with telemetry.phase_span(job) if self._is_traced else telemetry.NO_SPAN as span:
            self._log.info("phase_started", attempts=job.attempts)
            try:
                transition = await self._run_phase(job)
            except (JobError, DatabaseUnreachable) as error:
                transition = after_error(error)
            except LeaseLost:
                raise
            except Exception as error:  # noqa: BLE001  # the one place: what arrives here is a bug
                self._log.exception("phase_crashed")
                transition = after_bug(error)
            if span.is_recording():
                span.set_attribute("pgworker.transition", type(transition).__name__.lower())
                if isinstance(transition, Failure):
                    span.set_status(Status(StatusCode.ERROR, transition.error))
        self._tell(job, transition, time.monotonic() - began)
        return transition

    def _tell(self, job: Job, transition: Transition, seconds: float) -> None:
        labels = {"workflow": job.workflow, "phase": job.job_type}
        rounded = round(seconds, 3)
        match transition:
            case Advance() | Complete():
                telemetry.phase_seconds.record(seconds, labels)
                self._log.info("phase_succeeded", seconds=rounded)
            case Failure(kind=kind, error=error):
                telemetry.attempts_failed.add(1, {**labels, "error_kind": str(kind)})
                self._log.warning(
                    "phase_failed", seconds=rounded, error_kind=str(kind), error=error
                )
            case snooze:
                self._log.info(
                    "phase_snoozed",
                    seconds=rounded,
                    waiting_for=snooze.reason,
                    delay_seconds=round(snooze.delay.total_seconds(), 3),
                    **({"error": snooze.error} if snooze.error else {}),
                )

    # -- results --------------------------------------------------------------------------

    def _hand_in(self, held: Held, transition: Complete | Snooze) -> None:
        """Have the end of a claim stored, while the carrier goes on with the next job."""
        held.is_ending = True
        held.settlement = self._settling.hand_in(
            held.job, transition, partial(self._ended, held, transition)
        )

    def _ended(self, held: Held, transition: Complete | Snooze, error: LeaseLost | None) -> None:
        """Tell what became of it, and let go."""
        job = held.job
        if error is not None:
            self._log.warning("lease_lost", **telemetry.fields_of(job), error=str(error))
        elif isinstance(transition, Complete):
            seconds = (datetime.now(UTC) - job.created_at).total_seconds()
            telemetry.provisioning_seconds.record(seconds, {"workflow": job.workflow})
            self._log.info("job_succeeded", **telemetry.fields_of(job), seconds=round(seconds, 3))
        else:
            self._look_again()
        self._leases.let_go(held)

    async def _store_failure(self, job: Job, failure: Failure) -> None:
        part = f"failure of job {job.id}"
        try:
            status = await self._try_to_fail(job, failure, part)
        finally:
            self._outage.over(part)
        if status == "failed":
            self._log.error("job_failed", error_kind=str(failure.kind), error=failure.error)
        self._look_again()

    async def _try_to_fail(self, job: Job, failure: Failure, part: str) -> str:
        """Try until the database is back, or the lease runs out and this task is cancelled."""
        while True:
            try:
                return await self._jobs.fail(
                    job, failure, backoff=self._backoff, backoff_cap=self._backoff_cap
                )
            except DatabaseUnreachable as error:
                self._outage.failed(part, error)
                await asyncio.sleep(RETRY_AFTER.total_seconds())


def _following(job: Job, advance: Advance) -> Job:
    """Return the job as it goes on in its next phase, under the same claim."""
    return Job(
        id=job.id,
        client_id=job.client_id,
        workflow=job.workflow,
        job_type=advance.next_phase,
        attempts=0,
        max_attempts=job.max_attempts,
        claim_token=job.claim_token,
        checkpoint=job.checkpoint | advance.done.checkpoint,
        trace_context=job.trace_context,
        created_at=job.created_at,
    )
