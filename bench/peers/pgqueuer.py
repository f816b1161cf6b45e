"""pgqueuer: `PgQueuer.run`, `Queries.enqueue` with lists; uvloop, as in its own command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from bench.contender import BULK, main

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping


class Pgqueuer:
    """Settings: `batch_size`, and `pool`: the size of a pool instead of a single connection."""

    # A finished job leaves the table.
    unfinished = "select exists (select from pgqueuer)"

    def __init__(self, dsn: str, settings: Mapping[str, Any]) -> None:
        self._dsn = dsn
        self._options = dict(settings)
        self._pool_size = self._options.pop("pool", None)

    async def _queries(self) -> Queries:
        return Queries(AsyncpgDriver(await asyncpg.connect(self._dsn)))

    async def prepare(self, jobs: int) -> None:
        await (await self._queries()).install()

    async def enqueue(self, jobs: int) -> Callable[[], Awaitable[None]]:
        queries = await self._queries()
        sizes = [min(BULK, jobs - start) for start in range(0, jobs, BULK)]

        async def go() -> None:
            for size in sizes:
                await queries.enqueue(["noop"] * size, [None] * size, [0] * size)

        return go

    async def enqueue_one(self) -> Callable[[], Awaitable[None]]:
        queries = await self._queries()

        async def go() -> None:
            await queries.enqueue("noop", None)

        return go

    async def work(self, on_start: Callable[[], None]) -> None:
        if self._pool_size is None:
            queuer = PgQueuer.from_asyncpg_connection(await asyncpg.connect(self._dsn))
        else:
            pool = await asyncpg.create_pool(self._dsn, min_size=2, max_size=self._pool_size)
            queuer = PgQueuer.from_asyncpg_pool(pool)

        @queuer.entrypoint("noop")
        async def noop(job: Job) -> None:
            on_start()

        await queuer.run(**self._options)


if __name__ == "__main__":
    main(Pgqueuer, run=uvloop.run)
