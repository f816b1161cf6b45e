"""awa (`awa-pg`): async handlers; its Rust core claims, completes and sends heartbeats."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import awa

from bench.contender import BULK, main

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

QUEUE = "bench"


@dataclass
class Noop:
    """A job without arguments."""


class Awa:
    """Settings: `workers` (50 in its guide), `claim_batch_size`."""

    # A view over its rings of tables.
    unfinished = "select exists (select from awa.jobs where state::text <> 'completed')"

    def __init__(self, dsn: str, settings: Mapping[str, Any]) -> None:
        self._client = awa.AsyncClient(dsn, max_connections=10)
        options = dict(settings)
        self._queue = {"name": QUEUE, "max_workers": options.pop("workers", 50), **options}

    async def prepare(self, jobs: int) -> None:
        await self._client.migrate()
        await self._client.install_queue_storage()

    async def enqueue(self, jobs: int) -> Callable[[], Awaitable[None]]:
        sizes = [min(BULK, jobs - start) for start in range(0, jobs, BULK)]

        async def go() -> None:
            for size in sizes:
                await self._client.enqueue_many_copy([Noop()] * size, queue=QUEUE)

        return go

    async def enqueue_one(self) -> Callable[[], Awaitable[None]]:
        async def go() -> None:
            await self._client.insert(Noop(), queue=QUEUE)

        return go

    async def work(self, on_start: Callable[[], None]) -> None:
        @self._client.task(Noop, queue=QUEUE)
        async def noop(job: object) -> None:
            on_start()

        await self._client.start([self._queue])
        try:
            await asyncio.Future()
        finally:
            await self._client.shutdown()


if __name__ == "__main__":
    main(Awa)
