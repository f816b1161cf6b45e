"""Workers in tests, with phases that a test controls."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from pgworker.db.listen import Listener
from pgworker.models import Complete, Done
from pgworker.queue.jobs import Jobs
from pgworker.queue.worker import Worker, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from pgworker.db.pool import Pool
    from pgworker.models import Job, Transition

    RunPhase = Callable[[Job], Awaitable[Transition]]

T = TypeVar("T")

DONE = Complete(Done())

# Longer than any test: a test that passes has not waited for it.
NEVER = timedelta(hours=1)
# What a test waits for comes within a second, except on a busy machine.
TIMEOUT = timedelta(seconds=60)

# Short enough to wait for, long enough not to be lost on a busy machine.
SHORT_LEASE = timedelta(seconds=6)


async def complete_at_once(_: Job) -> Transition:
    """A phase that ends at once, and its job with it."""
    return DONE


class PhaseInTest:
    """A phase that runs until the test lets it end."""

    def __init__(self, outcome: Transition | Exception | None = None) -> None:
        self.outcome = outcome or DONE
        self.started: asyncio.Queue[Job] = asyncio.Queue()
        self.may_end = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.ended: list[int] = []

    async def __call__(self, job: Job) -> Transition:
        self.started.put_nowait(job)
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        self.ended.append(job.id)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def next_job(self) -> Job:
        """Return the next job whose phase has started."""
        return await within(self.started.get())


@asynccontextmanager
async def working(
    pool: Pool,
    run_phase: RunPhase,
    *,
    listen: str | None = None,
    worker_id: str = "worker",
    workflows: tuple[str, ...] = ("provision",),
    concurrency: int = 20,
    lease: timedelta = timedelta(seconds=30),
    poll: timedelta = NEVER,
    grace: timedelta = NEVER,
    backoff: timedelta = timedelta(milliseconds=1),
    until_empty: bool = False,
    jobs: Jobs | None = None,
    prepare: Callable[[Sequence[Job]], Awaitable[None]] | None = None,
) -> AsyncIterator[Worker]:
    """Run a worker while the block runs; afterwards it is stopped at once, and awaited.

    With `listen`, a DSN, the block begins once the worker listens there. With `until_empty`, the
    worker is awaited without being stopped. `jobs` replaces its own.
    """
    worker = Worker(
        jobs or Jobs(pool, worker=worker_id, lease=lease),
        run_phase,
        prepare=prepare,
        settings=WorkerSettings(
            workflows=workflows,
            concurrency=concurrency,
            poll=poll,
            backoff=backoff,
            grace=grace,
            until_empty=until_empty,
        ),
    )
    listens = asyncio.Event()

    def wake() -> None:
        # A listener's first wake-up means that it has connected. No view of PostgreSQL shows
        # whether another session listens.
        listens.set()
        worker.wake()

    listener = None if listen is None else Listener(listen, wake)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run(listener))
        if listener is not None:
            await within(listens.wait())
        try:
            yield worker
        finally:
            if not until_empty:
                worker.drain()
                worker.drain()
        await within(asyncio.wait([running]))


async def within(awaitable: Awaitable[T]) -> T:
    """Await, but not for longer than the time-out."""
    return await asyncio.wait_for(awaitable, TIMEOUT.total_seconds())
