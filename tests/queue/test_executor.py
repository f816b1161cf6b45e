"""How claimed jobs are run, and how their results are stored."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from pgworker.db.outage import Outage
from pgworker.errors import DatabaseUnreachable
from pgworker.models import Complete, Job, JobStatus, Transition
from pgworker.queue.completer import Completer
from pgworker.queue.executor import Executor
from pgworker.queue.jobs import Jobs
from pgworker.queue.leases import Leases
from tests.support.polling import wait_for_log
from tests.support.workers import (
    DONE,
    SHORT_LEASE,
    PhaseInTest,
    complete_at_once,
    within,
    working,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from pgworker.db.pool import Pool
    from pgworker.queue.leases import ClaimedJob
    from tests.support.jobs import JobsInTest

LEASE = timedelta(seconds=30)


class CountingJobs(Jobs):
    """Notes how many jobs each statement completes."""

    def __init__(self, pool: Pool, *, worker: str, lease: timedelta) -> None:
        super().__init__(pool, worker=worker, lease=lease)
        self.completed: list[int] = []

    async def complete(self, steps: Sequence[tuple[Job, Complete]]) -> set[int]:
        self.completed.append(len(steps))
        return await super().complete(steps)


class Engine:
    """An executor with its leases and its completer, without a worker around them."""

    def __init__(self, pool: Pool) -> None:
        self.jobs = CountingJobs(pool, worker="engine", lease=LEASE)
        self.phase = PhaseInTest()
        self.freed = 0
        self._is_idle = asyncio.Event()
        outage = Outage()
        self.leases = Leases(self.jobs, outage, on_freed=self._on_freed)
        self.completer = Completer(self.jobs, outage, jobs_in_hand=self.leases.__len__)
        self.executor = Executor(
            self.phase,
            self.jobs,
            self.leases,
            self.completer,
            outage,
            backoff=timedelta(0),
            backoff_cap=timedelta(0),
            wake=lambda: None,
        )

    def _on_freed(self) -> None:
        self.freed += 1
        if not len(self.leases):
            self._is_idle.set()

    async def claim(self, count: int) -> list[ClaimedJob]:
        jobs = await self.jobs.claim(count, ["provision"])
        claimed = [self.leases.add(job, asked_at=time.monotonic()) for job in jobs]
        for each in claimed:
            self.executor.submit(each)
        return claimed

    async def until_idle(self) -> None:
        """Return once no job is in hand any more."""
        await within(self._is_idle.wait())


@pytest.fixture
async def engine(jobs: JobsInTest) -> AsyncIterator[Engine]:
    engine = Engine(jobs.pool)
    completing = asyncio.create_task(engine.completer.run())
    yield engine
    completing.cancel()
    await asyncio.wait([completing])


async def test_all_pending_jobs_run_at_a_time_when_their_phases_wait(
    jobs: JobsInTest, engine: Engine
) -> None:
    await jobs.add_many(30)
    claimed = await engine.claim(30)

    async with asyncio.TaskGroup() as tasks:
        engine.executor.start(tasks)
        started = {(await within(engine.phase.started.get())).id for _ in claimed}
        engine.phase.may_end.set()
        await engine.until_idle()

    assert started == {each.job.id for each in claimed}
    assert engine.freed == 30


async def test_a_job_whose_lease_is_lost_while_it_is_pending_is_not_run(
    jobs: JobsInTest, engine: Engine
) -> None:
    await jobs.add_many(2)
    lost, kept = await engine.claim(2)
    engine.phase.may_end.set()

    engine.leases.stop(lost, "another worker holds the job now")
    async with asyncio.TaskGroup() as tasks:
        engine.executor.start(tasks)
        await engine.until_idle()

    assert engine.phase.ended == [kept.job.id]
    assert await jobs.fetch_status(lost.job.id) is JobStatus.RUNNING


async def test_pending_jobs_are_run_though_the_first_task_was_cancelled_before_it_began(
    jobs: JobsInTest, engine: Engine
) -> None:
    await jobs.add()
    (claimed,) = await engine.claim(1)
    engine.phase.may_end.set()

    async with asyncio.TaskGroup() as tasks:
        before = asyncio.all_tasks()
        engine.executor.start(tasks)
        (task,) = asyncio.all_tasks() - before
        task.cancel()
        await engine.until_idle()

    assert engine.phase.ended == [claimed.job.id]


async def test_when_another_loop_dies_before_a_task_begins_only_that_error_is_raised(
    jobs: JobsInTest, engine: Engine
) -> None:
    await jobs.add()
    await engine.claim(1)
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def die() -> None:
        raise ValueError("the other loop's own")

    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(die())
            # Cancelled by the group once the other loop has died, which is before it begins.
            asyncio.get_running_loop().call_soon(engine.executor.start, tasks)
            await asyncio.Future()

    with pytest.raises(ExceptionGroup) as caught:
        await work()

    assert [str(error) for error in caught.value.exceptions] == ["the other loop's own"]
    assert reported == []


async def test_jobs_that_are_pending_when_the_executor_stops_are_returned_and_no_longer_in_hand(
    jobs: JobsInTest, engine: Engine
) -> None:
    await jobs.add_many(3)
    claimed = await engine.claim(3)

    left = engine.executor.stop()

    assert left == [each.job for each in claimed]
    assert len(engine.leases) == 0


async def test_phases_that_never_wait_let_other_tasks_run(jobs: JobsInTest) -> None:
    await jobs.add_many(300)
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def burn(job: Job) -> Transition:
        until = time.monotonic() + 0.001
        while time.monotonic() < until:
            pass
        turns_seen.append(turns)
        return DONE

    turns_seen: list[int] = []
    other = asyncio.create_task(take_turns())
    async with working(jobs.pool, burn, until_empty=True, concurrency=300):
        pass
    other.cancel()

    # 300 ms of work in turns of 5 ms: without turns all would see the same number.
    assert turns_seen[-1] - turns_seen[0] >= 20


# -- results on their way ---------------------------------------------------------------------


class JobsOfASilentServer(Jobs):
    """The queue of a server that is away, until a test brings it back."""

    def __init__(self, pool: Pool, *, lease: timedelta) -> None:
        super().__init__(pool, worker="worker", lease=lease)
        self.is_away = True
        self.submitted: list[int] = []

    async def complete(self, steps: Sequence[tuple[Job, Complete]]) -> set[int]:
        self.submitted += [job.claim_token for job, _ in steps]
        if self.is_away:
            raise DatabaseUnreachable("away")
        return await super().complete(steps)

    async def heartbeat(self, jobs: Sequence[Job], *, timeout: timedelta) -> dict[int, bool]:
        if self.is_away:
            raise DatabaseUnreachable("away")
        return await super().heartbeat(jobs, timeout=timeout)


async def test_a_result_is_dropped_when_the_lease_may_have_run_out_before_it_was_stored(
    jobs: JobsInTest,
) -> None:
    job_id = await jobs.add()
    away = JobsOfASilentServer(jobs.pool, lease=SHORT_LEASE)

    with capture_logs() as logs:
        async with working(
            jobs.pool, complete_at_once, jobs=away, lease=SHORT_LEASE, until_empty=True
        ):
            await wait_for_log(logs, "lease_lost")
            away.submitted.clear()
            away.is_away = False
            # There is no other worker: this one rescues the job itself.
            await jobs.wait_for_status(job_id, JobStatus.SUCCEEDED)

    assert (await jobs.fetch_row(job_id))["claim_token"] == 2
    assert away.submitted == [2]


async def test_many_results_are_stored_by_several_statements(
    jobs: JobsInTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgworker.queue.completer.BATCH_LIMIT", 3)
    await jobs.add_many(10)

    counting = CountingJobs(jobs.pool, worker="worker", lease=LEASE)
    async with working(jobs.pool, complete_at_once, jobs=counting, until_empty=True):
        pass

    assert sum(counting.completed) == 10
    assert max(counting.completed) == 3


async def test_results_of_a_busy_worker_wait_a_moment_for_each_other(
    jobs: JobsInTest, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgworker.queue.batching.WINDOW", timedelta(seconds=2))
    await jobs.add_many(10)
    first, second, third, *_ = await engine.claim(10)

    await within(engine.completer.store(first.job, DONE))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(engine.completer.store(second.job, DONE))
        for _ in range(10):  # until it is submitted, and the completer has seen it
            await asyncio.sleep(0)
        tasks.create_task(engine.completer.store(third.job, DONE))

    assert engine.jobs.completed == [1, 2]


async def test_a_single_result_does_not_wait(
    jobs: JobsInTest, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgworker.queue.batching.WINDOW", timedelta(hours=1))

    for _ in range(3):
        await jobs.add()
        (claimed,) = await engine.claim(1)
        await within(engine.completer.store(claimed.job, DONE))
        engine.leases.discard(claimed)

    assert engine.jobs.completed == [1, 1, 1]


class JobsThatBeatLate(Jobs):
    """A heartbeat whose answer comes after the end of what it was about."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool, worker="worker", lease=SHORT_LEASE)
        self.completed = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def complete(self, steps: Sequence[tuple[Job, Complete]]) -> set[int]:
        refused = await super().complete(steps)
        self.completed.set()
        await self.may_answer.wait()
        return refused

    async def heartbeat(self, jobs: Sequence[Job], *, timeout: timedelta) -> dict[int, bool]:
        lost = await super().heartbeat(jobs, timeout=timeout)
        if jobs and self.completed.is_set():
            asyncio.get_running_loop().call_soon(self.may_answer.set)
        return lost


async def test_a_heartbeat_that_finds_a_job_ended_by_its_own_worker_is_no_lost_lease(
    jobs: JobsInTest,
) -> None:
    job_id = await jobs.add()

    with capture_logs() as logs:
        async with working(
            jobs.pool,
            complete_at_once,
            jobs=JobsThatBeatLate(jobs.pool),
            lease=SHORT_LEASE,
            until_empty=True,
        ):
            pass

    assert await jobs.fetch_status(job_id) is JobStatus.SUCCEEDED
    events = [line["event"] for line in logs]
    assert "job_succeeded" in events
    assert "lease_lost" not in events


async def test_jobs_that_were_claimed_together_are_prepared_for_before_any_begins(
    jobs: JobsInTest,
) -> None:
    await jobs.add_many(5)
    prepared: list[list[int]] = []
    begun: list[int] = []

    async def prepare(claimed: Sequence[Job]) -> None:
        assert not begun
        await asyncio.sleep(0)
        prepared.append(sorted(job.id for job in claimed))

    async def phase(job: Job) -> Transition:
        assert prepared
        begun.append(job.id)
        return DONE

    async with working(jobs.pool, phase, prepare=prepare, until_empty=True):
        pass

    assert len(begun) == 5
    assert prepared == [sorted(begun)]


async def test_a_lease_that_is_lost_while_its_job_is_prepared_for_begins_no_phase(
    jobs: JobsInTest,
) -> None:
    job_id = await jobs.add()
    is_lost = asyncio.Event()
    begun: list[int] = []

    async def prepare(_: Sequence[Job]) -> None:
        await jobs.pool.execute("select pgworker.cancel(id) from clients")
        await is_lost.wait()

    async def phase(job: Job) -> Transition:
        begun.append(job.id)
        return DONE

    with capture_logs() as logs:
        async with working(jobs.pool, phase, prepare=prepare, lease=SHORT_LEASE):
            await wait_for_log(logs, "lease_lost")
            is_lost.set()

    assert begun == []
    assert await jobs.fetch_status(job_id) is JobStatus.CANCELLED
