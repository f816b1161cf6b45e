"""procrastinate: `PsycopgConnector`, `run_worker_async`, `batch_defer_async`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import procrastinate

from bench.contender import BULK, main

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping


class Procrastinate:
    """Settings: `concurrency`, which is the size of the pool as well."""

    unfinished = "select exists (select from procrastinate_jobs where status in ('todo', 'doing'))"

    def __init__(self, dsn: str, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        pool = {"max_size": settings["concurrency"]} if "concurrency" in settings else {}
        self._app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(conninfo=dsn, **pool)
        )
        self._on_start: Callable[[], None] = lambda: None

        @self._app.task(name="noop")
        async def noop() -> None:
            self._on_start()

        self._noop = noop

    async def prepare(self, jobs: int) -> None:
        async with self._app.open_async():
            await self._app.schema_manager.apply_schema_async()

    async def enqueue(self, jobs: int) -> Callable[[], Awaitable[None]]:
        await self._app.open_async()
        sizes = [min(BULK, jobs - start) for start in range(0, jobs, BULK)]

        async def go() -> None:
            for size in sizes:
                await self._noop.batch_defer_async(*({} for _ in range(size)))

        return go

    async def enqueue_one(self) -> Callable[[], Awaitable[None]]:
        async def go() -> None:
            await self._noop.defer_async()

        return go

    async def work(self, on_start: Callable[[], None]) -> None:
        self._on_start = on_start
        async with self._app.open_async():
            await self._app.run_worker_async(install_signal_handlers=False, **self._settings)


if __name__ == "__main__":
    main(Procrastinate)
