"""How long a busy worker's statements wait for more to carry."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pgworker.models import Complete, Done, Job, JobStatus, Transition
from pgworker.queue import batching, executor
from pgworker.queue.batching import BatchWindow
from pgworker.queue.jobs import Jobs
from tests.support.workers import within, working

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgworker.db.pool import Pool
    from tests.support.jobs import JobsInTest


class JobsThatNote(Jobs):
    """Notes for each claim how many jobs it asks for, and how many in hand haven't begun."""

    def __init__(self, pool: Pool, *, worker: str, lease: timedelta) -> None:
        super().__init__(pool, worker=worker, lease=lease)
        self.unbegun = 0
        self.claims: list[tuple[int, int]] = []

    async def claim(self, limit: int, workflows: Sequence[str], *, in_hand: int = 0) -> list[Job]:
        self.claims.append((limit, self.unbegun))
        claimed = await super().claim(limit, workflows, in_hand=in_hand)
        self.unbegun += len(claimed)
        return claimed


@pytest.fixture
def long_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "WINDOW", timedelta(hours=1))


def one_job_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each turn of the loop run one job, and a claim be sent at each."""
    monkeypatch.setattr(executor, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(batching, "WINDOW", timedelta(0))


async def waits(window: BatchWindow, ready: int, limit: int, *, can_wait: bool = False) -> bool:
    """Whether the next statement waits."""
    waiting = asyncio.create_task(
        window.wait(lambda: ready, lambda: limit, can_wait=lambda: can_wait)
    )
    await asyncio.sleep(0)
    is_waiting = not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])
    return is_waiting


@pytest.mark.usefixtures("long_window")
async def test_the_first_statement_is_sent_at_once_and_so_is_one_that_is_half_full() -> None:
    window = BatchWindow()
    assert not await waits(window, 1, 500)

    window.restart()
    assert await waits(window, 249, 500)
    assert not await waits(window, 250, 500)


async def test_a_statement_that_is_not_needed_yet_waits_beyond_its_window() -> None:
    window = BatchWindow()
    allowances = iter([True] * 5)

    await within(
        window.wait(lambda: 1, lambda: 500, can_wait=lambda: next(allowances, False)),
    )

    assert next(allowances, None) is None
    assert await waits(window, 1, 500, can_wait=True)


async def test_a_worker_claims_no_more_while_jobs_in_hand_have_not_begun(
    jobs: JobsInTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_job_a_turn(monkeypatch)
    await jobs.add_many(90)
    asked = JobsThatNote(jobs.pool, worker="worker", lease=timedelta(seconds=30))

    async def phase(_: Job) -> Transition:
        asked.unbegun -= 1
        return Complete(Done())

    async with working(jobs.pool, phase, jobs=asked, concurrency=30, until_empty=True):
        pass

    assert asked.unbegun == 0
    assert [limit for limit, unbegun in asked.claims if unbegun and limit < 15] == []


async def test_a_drain_does_not_wait_for_jobs_in_hand_that_have_not_begun(
    jobs: JobsInTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_job_a_turn(monkeypatch)
    await jobs.add_many(200)
    begun: list[int] = []

    async def phase(job: Job) -> Transition:
        begun.append(job.id)
        if not worker.is_draining:
            worker.drain()
        return Complete(Done())

    async with working(jobs.pool, phase, concurrency=200, until_empty=True) as worker:
        pass

    assert len(begun) < 100
    queued = await jobs.pool.fetchval(
        "select count(*) from client_provisioning_jobs where status = $1", JobStatus.QUEUED
    )
    assert queued == 200 - len(begun)
