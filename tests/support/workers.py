"""Workers in tests: with phases made by hand, and with logs and spans that can be looked at."""

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

# Long enough that a test which passes didn't wait for it.
NEVER = timedelta(hours=1)
# What a test waits for comes within a second, but for a machine that has no time for it.
PATIENCE = timedelta(seconds=60)

# Short enough to be waited for, long enough that a busy machine doesn't lose it by itself.
SHORT_LEASE = timedelta(seconds=6)


class PhaseInTest:
    """A phase that stays in its place until the test lets it go on."""

    def __init__(self, outcome: Transition | Exception | None = None) -> None:
        self.outcome = outcome or Complete(Done())
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
    """Run a worker while the block runs; afterwards it is told to leave at once, and awaited.

    With `listen`, the block begins once it listens there. With `until_empty`, it is awaited without
    being told. `jobs` stands in for its own.
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
        # A listener's first wake-up tells that it has connected. No view of PostgreSQL's tells that
        # another session listens: what a session last ran, one sees by chance.
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
    """Await with patience, but not for ever."""
    return await asyncio.wait_for(awaitable, PATIENCE.total_seconds())


async def until_somebody_waits_for_a_lock(pool: Pool) -> None:
    """Return when a session in the pool's database does."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while not await pool.fetchval(  # noqa: ASYNC110  # PostgreSQL tells no event
            "select true from pg_stat_activity "
            "where datname = current_database() and wait_event_type = 'Lock'"
        ):
            await asyncio.sleep(0)
