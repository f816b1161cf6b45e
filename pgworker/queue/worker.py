"""The worker: claims jobs, keeps their leases, runs their phases, leaves when told to."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog
from opentelemetry.trace import Status, StatusCode

from pgworker import telemetry
from pgworker.db.outage import Outage
from pgworker.errors import DatabaseUnreachable, JobError, LeaseLost
from pgworker.models import Advance, Complete, Failure, Job, Transition
from pgworker.queue.policy import after_bug, after_error
from pgworker.queue.settling import RETRY_AFTER, Settling

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pgworker.queue.jobs import Jobs

log = telemetry.get_logger()

# Something is due that we couldn't claim: another worker is at it, or it is paused.
RECHECK = timedelta(seconds=1)
DATABASE_RETRY_CAP = timedelta(seconds=5)


class Listening(Protocol):
    """What wakes the worker (`db.listen.Listener`)."""

    async def run(self) -> None:
        """Listen until cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker works.

    Attributes:
        concurrency: phases at a time.
        lease: silence after which others may take its jobs over.
        poll: how often it looks even if nobody wakes it.
        backoff, backoff_cap: base and cap of the wait after a failed attempt.
        grace: how long running phases may go on once it drains.
        until_empty: leave when nothing is queued, running or waiting any more.
    """

    workflows: Sequence[str]
    concurrency: int = 20
    lease: timedelta = timedelta(seconds=30)
    poll: timedelta = timedelta(seconds=30)
    backoff: timedelta = timedelta(seconds=2)
    backoff_cap: timedelta = timedelta(seconds=300)
    grace: timedelta = timedelta(seconds=20)
    until_empty: bool = False


@dataclass(slots=True)
class _Held:
    """A claimed job, the task that carries it, and until when the lease is surely ours."""

    job: Job
    sure_until: float
    task: asyncio.Task[None] | None = None


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
        outage: Outage | None = None,
    ) -> None:
        """Take the queue and what a phase does; `outage` is told of trouble with the database."""
        self._jobs = jobs
        self._run_phase = run_phase
        self._settings = settings
        self._outage = outage or Outage()
        self._settling = Settling(jobs, self._outage)
        self._held: dict[int, _Held] = {}
        self._signals = _Signals()
        self._more_is_due = False

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
                loops.create_task(self._keep_leases(), name="heartbeat"),
                loops.create_task(self._fence(), name="fence"),
            ]
            if listener is not None:
                supporting.append(loops.create_task(listener.run(), name="listen"))
            async with asyncio.TaskGroup() as phases:
                await self._claim_until_draining(phases)
                await self._wind_down()
            # The last phase has ended: nothing is left to hear or to keep alive.
            for task in supporting:
                task.cancel()

    # -- claiming -------------------------------------------------------------------------

    async def _claim_until_draining(self, phases: asyncio.TaskGroup) -> None:
        failures = 0
        while not self._signals.draining.is_set():
            self._signals.wake.clear()
            try:
                timeout = await self._claim_once(phases)
                failures = 0
                self._outage.over("claim")
            except DatabaseUnreachable as error:
                self._outage.failed("claim", error)
                failures += 1
                cap = min(DATABASE_RETRY_CAP.total_seconds(), 0.1 * 2 ** min(failures, 10))
                timeout = timedelta(seconds=random.uniform(0.05, cap))  # noqa: S311  # jitter
            if timeout is not None:
                await self._sleep(timeout)

    async def _claim_once(self, phases: asyncio.TaskGroup) -> timedelta | None:
        """Fill the free slots; return how long to sleep at most, None for not at all."""
        free = self._settings.concurrency - len(self._held)
        if free <= 0:
            self._more_is_due = True
            return self._settings.poll
        asked_at = time.monotonic()
        claimed = await self._jobs.claim(free, self._settings.workflows)
        self._more_is_due = len(claimed) == free
        for job in claimed:
            if job.id in self._held:
                # Our own lease ran out (a process that was frozen) and we were the first to see it.
                self._stop(self._held[job.id], "this worker claimed the job again")
            held = _Held(job, sure_until=asked_at + self._settings.lease.total_seconds())
            self._held[job.id] = held
            held.task = phases.create_task(self._carry(held), name=f"job {job.id}")
            # Not in a `finally` of the task: one that is cancelled before its first step has
            # none, and a job that is kept by nobody would have its lease renewed for ever.
            held.task.add_done_callback(partial(self._let_go, held))
        if self._more_is_due:
            return self._settings.poll
        if claimed:
            # Short sleepers among what is left: ask for the time before going to bed.
            return await self._time_until_due()
        if self._settings.until_empty and not self._held:
            outstanding = await self._jobs.outstanding()
            if outstanding.live == 0:
                self.drain()
                return None
        return await self._time_until_due()

    async def _time_until_due(self) -> timedelta:
        seconds = await self._jobs.seconds_until_due()
        # Who waits for the queue to be empty isn't told when another worker finishes a job.
        longest = RECHECK if self._settings.until_empty else self._settings.poll
        if seconds is None:
            return longest
        if seconds <= 0:
            return min(RECHECK, longest)
        return min(timedelta(seconds=seconds), longest)

    async def _sleep(self, timeout: timedelta) -> None:
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await self._signals.wake.wait()
        except TimeoutError:
            return

    # -- carrying a job -------------------------------------------------------------------

    async def _carry(self, held: _Held) -> None:
        """Run phase after phase, until the job ends, waits, or is no longer ours."""
        job = held.job
        structlog.contextvars.bind_contextvars(job_id=job.id, client_id=str(job.client_id))
        try:
            following: Job | None = job
            while following is not None:
                job = following
                structlog.contextvars.bind_contextvars(phase=job.job_type)
                transition = await self._attempt(job)
                following = await self._store(job, transition)
                if following is not None:
                    held.job = following
                    if self._signals.draining.is_set():
                        await self._release([following])
                        return
        except LeaseLost as error:
            log.warning("lease_lost", error=str(error))

    def _let_go(self, held: _Held, _: asyncio.Task[None]) -> None:
        # A job that was let go of may be due, and claimed again, before its task has ended.
        if self._held.get(held.job.id) is held:
            del self._held[held.job.id]
        if self._more_is_due or not self._held:
            self._signals.wake.set()

    async def _attempt(self, job: Job) -> Transition:
        """Run the job's present phase once; every error becomes a transition here."""
        began = time.monotonic()
        attributes: dict[str, str | int] = {
            "pgworker.job_id": job.id,
            "pgworker.client_id": str(job.client_id),
            "pgworker.workflow": job.workflow,
            "pgworker.phase": job.job_type,
            "pgworker.attempts": job.attempts,
        }
        with telemetry.tracer.start_as_current_span(
            telemetry.SPAN_PHASE,
            context=telemetry.parent_context(job.trace_context),
            attributes=attributes,
        ) as span:
            log.info("phase_started", attempts=job.attempts)
            try:
                transition = await self._run_phase(job)
            except (JobError, DatabaseUnreachable) as error:
                transition = after_error(error)
            except LeaseLost:
                raise
            except Exception as error:  # the one place: what arrives here is a bug
                log.exception("phase_broke")
                transition = after_bug(error)
            span.set_attribute("pgworker.transition", type(transition).__name__.lower())
            if isinstance(transition, Failure):
                span.set_status(Status(StatusCode.ERROR, transition.error))
        seconds = time.monotonic() - began
        self._tell(job, transition, seconds)
        return transition

    def _tell(self, job: Job, transition: Transition, seconds: float) -> None:
        labels = {"workflow": job.workflow, "phase": job.job_type}
        rounded = round(seconds, 3)
        match transition:
            case Advance() | Complete():
                telemetry.phase_seconds.record(seconds, labels)
                log.info("phase_ended", seconds=rounded)
            case Failure(kind=kind, error=error):
                telemetry.attempts_failed.add(1, {**labels, "error_kind": str(kind)})
                log.warning("phase_failed", seconds=rounded, error_kind=str(kind), error=error)
            case snooze:
                log.info(
                    "phase_waits",
                    seconds=rounded,
                    waiting_for=snooze.reason,
                    delay_seconds=round(snooze.delay.total_seconds(), 3),
                    **({"error": snooze.error} if snooze.error else {}),
                )

    async def _store(self, job: Job, transition: Transition) -> Job | None:
        """Commit the transition; return the job when it goes on under the same claim."""
        match transition:
            case Failure():
                await self._store_failure(job, transition)
            case Advance(next_phase=next_phase, done=done):
                await self._settling.store(job, transition)
                return Job(
                    id=job.id,
                    client_id=job.client_id,
                    workflow=job.workflow,
                    job_type=next_phase,
                    attempts=0,
                    max_attempts=job.max_attempts,
                    claim_token=job.claim_token,
                    checkpoint=job.checkpoint | done.learnt,
                    trace_context=job.trace_context,
                    created_at=job.created_at,
                )
            case Complete():
                await self._settling.store(job, transition)
                seconds = (datetime.now(UTC) - job.created_at).total_seconds()
                telemetry.provisioning_seconds.record(seconds, {"workflow": job.workflow})
                log.info("job_succeeded", seconds=round(seconds, 3))
            case _:
                await self._settling.store(job, transition)
                self._look_again()
        return None

    def _look_again(self) -> None:
        """Let the claiming loop learn of a wait that may end before it meant to wake up."""
        self._signals.wake.set()

    async def _store_failure(self, job: Job, failure: Failure) -> None:
        part = f"failure of job {job.id}"
        try:
            status = await self._try_to_fail(job, failure, part)
        finally:
            self._outage.over(part)
        if status == "failed":
            log.error("job_failed", error_kind=str(failure.kind), error=failure.error)
        self._look_again()

    async def _try_to_fail(self, job: Job, failure: Failure, part: str) -> str:
        """Try until the database is back, or the lease runs out and this task is cancelled."""
        while True:
            try:
                return await self._jobs.fail(
                    job,
                    failure,
                    backoff=self._settings.backoff,
                    backoff_cap=self._settings.backoff_cap,
                )
            except DatabaseUnreachable as error:
                self._outage.failed(part, error)
                await asyncio.sleep(RETRY_AFTER.total_seconds())

    # -- keeping leases -------------------------------------------------------------------

    async def _keep_leases(self) -> None:
        """Renew all leases with one statement; stop phases whose lease is somebody else's."""
        lease = self._settings.lease.total_seconds()
        failures = 0
        while True:
            await asyncio.sleep(lease / 3 if failures == 0 else lease / 30)
            held = list(self._held.values())
            asked_at = time.monotonic()
            try:
                lost = await self._jobs.heartbeat(
                    [each.job for each in held], timeout=timedelta(seconds=lease / 9)
                )
            except DatabaseUnreachable as error:
                self._outage.failed("heartbeat", error)
                failures += 1
            else:
                self._outage.over("heartbeat")
                failures = 0
                for each in held:
                    each.sure_until = asked_at + lease
                    if each.job.id in lost and self._held.get(each.job.id) is each:
                        self._stop(each, "somebody else holds the job now")

    async def _fence(self) -> None:
        """Stop phases whose lease may be running out. Asks nobody but the clock."""
        lease = self._settings.lease.total_seconds()
        while True:
            await asyncio.sleep(lease / 30)
            for each in list(self._held.values()):
                if time.monotonic() > each.sure_until - lease / 6:
                    self._stop(each, "the lease could not be renewed in time")

    def _stop(self, held: _Held, reason: str) -> None:
        if held.task is not None and not held.task.cancelling():
            log.warning("lease_lost", job_id=held.job.id, error=reason)
            held.task.cancel()

    # -- leaving --------------------------------------------------------------------------

    async def _wind_down(self) -> None:
        """Give phases their grace, then stop them and release their jobs."""
        tasks = [held.task for held in self._held.values() if held.task is not None]
        if not tasks:
            return
        log.info("draining", jobs=len(tasks), grace_seconds=self._settings.grace.total_seconds())
        hurry = asyncio.ensure_future(self._signals.hurry.wait())
        finished = asyncio.ensure_future(asyncio.wait(tasks))
        await asyncio.wait(
            {hurry, finished},
            timeout=self._settings.grace.total_seconds(),
            return_when=asyncio.FIRST_COMPLETED,
        )
        hurry.cancel()
        finished.cancel()
        unfinished = [held for held in self._held.values() if held.task is not None]
        for held in unfinished:
            assert held.task is not None
            held.task.cancel()
        if not unfinished:
            return
        await asyncio.wait([held.task for held in unfinished if held.task is not None])
        await self._release([held.job for held in unfinished])

    async def _release(self, jobs: Sequence[Job]) -> None:
        try:
            await self._jobs.release(jobs)
        except DatabaseUnreachable as error:
            # Their leases run out by themselves.
            log.warning("release_failed", jobs=len(jobs), error=str(error))
        else:
            log.info("jobs_released", jobs=len(jobs))
