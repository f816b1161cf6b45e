"""chancy: a queue on its `AsyncExecutor`, with eager polling instead of a poll every 5 s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import chancy
from chancy import Chancy, Queue, Worker

from bench.contender import BULK, main

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

handler: Callable[[], None] = print


@chancy.job()
async def noop() -> None:
    handler()


class ChancyUnderTest:
    """Settings: `concurrency`."""

    unfinished = "select exists (select from chancy_jobs where state <> 'succeeded')"

    def __init__(self, dsn: str, settings: Mapping[str, Any]) -> None:
        self._chancy = Chancy(dsn)
        self._queue = Queue(
            "default",
            executor="chancy.executors.asyncex.AsyncExecutor",
            eager_polling=True,
            **settings,
        )

    async def prepare(self, jobs: int) -> None:
        async with self._chancy:
            await self._chancy.migrate()
            await self._chancy.declare(self._queue, upsert=True)

    async def enqueue(self, jobs: int) -> Callable[[], Awaitable[None]]:
        await self._chancy.pool.open()

        async def go() -> None:
            async for _ in self._chancy.push_many([noop.job] * jobs, batch_size=BULK):
                pass

        return go

    async def enqueue_one(self) -> Callable[[], Awaitable[None]]:
        await self._chancy.pool.open()

        async def go() -> None:
            await self._chancy.push(noop)

        return go

    async def work(self, on_start: Callable[[], None]) -> None:
        # Jobs are found by their import path, so the handler must be a global of this module.
        global handler
        handler = on_start
        async with self._chancy:
            await self._chancy.declare(self._queue, upsert=True)
            async with Worker(self._chancy, register_signal_handlers=False) as worker:
                await worker.wait_for_shutdown()


if __name__ == "__main__":
    main(ChancyUnderTest)
