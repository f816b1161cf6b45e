"""Runs claimed jobs, phase after phase, and has the results stored."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from opentelemetry.trace import Status, StatusCode

from pgworker import telemetry
from pgworker.errors import DatabaseUnreachable, JobError, LeaseLost, ResultRefused
from pgworker.models import Advance, Complete, Failure, Job, Snooze, Transition
from pgworker.queue.completer import RETRY_AFTER
from pgworker.queue.policy import after_bug, after_error, after_refused_result

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opentelemetry.trace import Span

    from pgworker.db.outage import Outage
    from pgworker.queue.completer import Completer, NotStored
    from pgworker.queue.jobs import Jobs
    from pgworker.queue.leases import ClaimedJob, Leases

# Phases that never wait would keep the event loop: after so long their task ends, and the next one
# begins after everything else that is ready.
TURN_SECONDS = 0.005


class Executor:
    """Runs jobs in as many tasks as there are phases that wait.

    A task takes a pending job, runs its phases, and goes on with the next job. As long as jobs are
    pending, one more task has been created, which begins when the present one first waits for
    something. A job whose phases never wait costs no task of its own.
    """

    def __init__(
        self,
        run_phase: Callable[[Job], Awaitable[Transition]],
        jobs: Jobs,
        leases: Leases,
        completer: Completer,
        outage: Outage,
        *,
        backoff: timedelta,
        backoff_cap: timedelta,
        wake: Callable[[], None],
    ) -> None:
        """Take the function that runs a phase.

        `wake` is called when the worker has a reason to look for due jobs: a job that was in hand
        will be due again, or one beside which no other may be claimed is no longer such a job.
        """
        self._run_phase = run_phase
        self._jobs = jobs
        self._leases = leases
        self._completer = completer
        self._outage = outage
        self._backoff = backoff
        self._backoff_cap = backoff_cap
        self._wake = wake
        # Bound once: the proxy would look up the configuration for each line.
        self._log = telemetry.get_logger().bind()
        self._pending: deque[ClaimedJob] = deque()
        self._tasks: asyncio.TaskGroup | None = None
        # Created, and not yet begun.
        self._next_task: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._is_traced = True

    def submit(self, claimed: ClaimedJob) -> None:
        """Put a job behind the pending ones."""
        self._pending.append(claimed)

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Create a task for the pending jobs, if there are any and none is about to begin."""
        if self._next_task is not None or not self._pending:
            return
        self._tasks = tasks
        running = self._run_pending(tasks)
        try:
            self._next_task = tasks.create_task(running, name="executor")
        except RuntimeError:
            # A loop of the worker has died: the group takes no more tasks, and ends the worker.
            running.close()
            return
        self._next_task.add_done_callback(partial(self._restart_if_not_begun, tasks))

    def has_pending(self) -> bool:
        """Return whether jobs in hand haven't begun."""
        return bool(self._pending)

    def stop(self) -> list[Job]:
        """Begin no more jobs; return those that were pending, which are in hand no longer."""
        # A task that is between two phases sees it, and releases its job.
        self._is_stopped = True
        left = [claimed for claimed in self._pending if not claimed.is_done]
        self._pending.clear()
        for claimed in left:
            self._leases.discard(claimed)
        return [claimed.job for claimed in left]

    async def release(self, jobs: Sequence[Job]) -> None:
        """Give jobs back unburnt."""
        try:
            await self._jobs.release(jobs)
        except DatabaseUnreachable as error:
            # Their leases run out by themselves.
            self._log.warning("release_failed", jobs=len(jobs), error=str(error))
        else:
            self._log.info("jobs_released", jobs=len(jobs))

    # -- a task ---------------------------------------------------------------------------

    async def _run_pending(self, tasks: asyncio.TaskGroup) -> None:
        """Run one pending job after the other."""
        self._next_task = None
        # Asked once for each task, not for each phase: a span costs more than a short phase.
        self._is_traced = telemetry.is_tracing()
        turn_ends = time.monotonic() + TURN_SECONDS
        while self._pending:
            claimed = self._pending.popleft()
            if claimed.is_done:
                continue
            self.start(tasks)
            claimed.task = asyncio.current_task()
            try:
                await self._run_job(claimed)
            finally:
                claimed.task = None
                if claimed.pending_write is None:
                    self._leases.discard(claimed)
            if time.monotonic() > turn_ends:
                # The next task has been created.
                return

    def _restart_if_not_begun(self, tasks: asyncio.TaskGroup, task: asyncio.Task[None]) -> None:
        """Create another task in place of one that was cancelled before it began."""
        if self._next_task is task:
            self._next_task = None
            self.start(tasks)

    async def _run_job(self, claimed: ClaimedJob) -> None:
        """Run phase after phase, until the job ends, waits, or is no longer ours."""
        try:
            while True:
                job = claimed.job
                telemetry.bind_job(job)
                transition = await self._run_once(job)
                match transition:
                    case Advance():
                        await self._completer.store(job, transition)
                        claimed.job = _advanced(job, transition)
                        if job.is_suspect:
                            # It has survived the phase: others may be claimed beside it now.
                            self._wake()
                        if self._is_stopped:
                            # A drain waits for the phase in hand, not for the whole workflow.
                            await self.release([claimed.job])
                            return
                    case Failure():
                        claimed.is_ending = True
                        await self._store_failure(job, transition)
                        return
                    case _:
                        self._enqueue_result(claimed, transition)
                        return
        except LeaseLost as error:
            self._log.warning("lease_lost", error=str(error))
        except ResultRefused as error:
            claimed.is_ending = True
            await self._store_failure(claimed.job, after_refused_result(error))

    async def _run_once(self, job: Job) -> Transition:
        """Run the job's present phase once; every error becomes a transition here."""
        began = time.monotonic()
        with telemetry.start_phase_span(job) if self._is_traced else telemetry.NO_SPAN as span:
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
                _describe(span, transition)
        self._record(job, transition, time.monotonic() - began)
        return transition

    def _record(self, job: Job, transition: Transition, seconds: float) -> None:
        """Log and measure one run of a phase."""
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
            case Snooze(delay=delay, reason=reason, error=error):
                self._log.info(
                    "phase_snoozed",
                    seconds=rounded,
                    waiting_for=reason,
                    delay_seconds=round(delay.total_seconds(), 3),
                    **({"error": error} if error else {}),
                )

    # -- results --------------------------------------------------------------------------

    def _enqueue_result(self, claimed: ClaimedJob, transition: Complete | Snooze) -> None:
        """Have the end of a claim stored, while this task goes on with the next job."""
        claimed.is_ending = True
        claimed.pending_write = self._completer.submit(
            claimed.job, transition, partial(self._on_stored, claimed, transition)
        )

    def _on_stored(
        self, claimed: ClaimedJob, transition: Complete | Snooze, error: NotStored | None
    ) -> None:
        """Log the end of a claim, and free its slot."""
        job = claimed.job
        if isinstance(error, ResultRefused):
            self._fail_soon(claimed, after_refused_result(error))
            return
        if error is not None:
            self._log.warning("lease_lost", **telemetry.get_job_fields(job), error=str(error))
        elif isinstance(transition, Complete):
            seconds = (datetime.now(UTC) - job.created_at).total_seconds()
            telemetry.provisioning_seconds.record(seconds, {"workflow": job.workflow})
            self._log.info(
                "job_succeeded", **telemetry.get_job_fields(job), seconds=round(seconds, 3)
            )
        else:
            self._wake()
        self._leases.discard(claimed)

    def _fail_soon(self, claimed: ClaimedJob, failure: Failure) -> None:
        """Have a failure stored in place of a result that the database doesn't take."""

        async def fail() -> None:
            telemetry.bind_job(claimed.job)
            claimed.task = asyncio.current_task()
            try:
                await self._store_failure(claimed.job, failure)
            finally:
                claimed.task = None
                self._leases.discard(claimed)

        # A job that is in hand keeps the worker, and so the group, from ending.
        assert self._tasks is not None
        claimed.pending_write = None
        self._tasks.create_task(fail(), name="fail a job")

    async def _store_failure(self, job: Job, failure: Failure) -> None:
        part = f"fail job {job.id}"
        try:
            status = await self._fail_when_reachable(job, failure, part)
        finally:
            self._outage.over(part)
        if status == "failed":
            self._log.error("job_failed", error_kind=str(failure.kind), error=failure.error)
        self._wake()

    async def _fail_when_reachable(self, job: Job, failure: Failure, part: str) -> str:
        """Try until the database is back, or the lease runs out and this task is cancelled."""
        while True:
            try:
                return await self._jobs.fail(
                    job, failure, backoff=self._backoff, backoff_cap=self._backoff_cap
                )
            except DatabaseUnreachable as error:
                self._outage.failed(part, error)
                await asyncio.sleep(RETRY_AFTER.total_seconds())


def _advanced(job: Job, advance: Advance) -> Job:
    """Return the job in its next phase, under the same claim: what `advance` has stored."""
    return job._replace(
        job_type=advance.next_phase,
        attempts=0,
        checkpoint=job.checkpoint | advance.done.checkpoint,
        in_phase=timedelta(0),
        crashes=0,
    )


def _describe(span: Span, transition: Transition) -> None:
    span.set_attribute("pgworker.transition", type(transition).__name__.lower())
    if isinstance(transition, Failure):
        span.set_status(Status(StatusCode.ERROR, transition.error))
