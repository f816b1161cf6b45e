"""pgworker's own statements in a bare loop: they write everything for a job, without a worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bench.contender import main
from bench.ours import LEASE, Pgworker
from pgworker.db.pool import open_pool
from pgworker.queue.jobs import JOB_QUERIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgworker.db.pool import Pool

WORKER = "bench"


class SqlAlone(Pgworker):
    """Settings: `connections` that claim and complete, `batch_size`."""

    async def work(self, on_start: Callable[[], None]) -> None:
        async with open_pool(self._dsn) as pool, asyncio.TaskGroup() as loops:
            for _ in range(self._settings["connections"]):
                loops.create_task(self._loop(pool, on_start))

    async def _loop(self, pool: Pool, on_start: Callable[[], None]) -> None:
        limit = self._settings["batch_size"]
        arguments = (WORKER, limit, LEASE, ["provision"], 0)
        while rows := await pool.fetch(JOB_QUERIES.claim, *arguments):
            for _ in rows:
                on_start()
            nothing = [None] * len(rows)
            ids, tokens = [row["id"] for row in rows], [row["claim_token"] for row in rows]
            await pool.fetch(JOB_QUERIES.complete, ids, tokens, nothing, nothing, WORKER)
        await asyncio.Future()


if __name__ == "__main__":
    main(SqlAlone)
