"""DBOS: async workflows on a queue that is polled every second by default; has no bulk call."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from dbos import DBOS, DBOSClient

from bench.contender import enqueue_one_by_one, main

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

QUEUE = "bench"
handler: Callable[[], object] = print


@DBOS.workflow(name="noop")
async def noop() -> None:
    handler()


class Dbos:
    """Settings: `worker_concurrency`, `polling_interval_ms`."""

    unfinished = (
        "select exists (select from dbos.workflow_status where status in ('ENQUEUED', 'PENDING'))"
    )

    def __init__(self, dsn: str, settings: Mapping[str, Any]) -> None:
        self._dsn = dsn
        options = dict(settings)
        poll = options.pop("polling_interval_ms", None)
        self._options = options | ({} if poll is None else {"polling_interval_sec": poll / 1000})

    def _launch(self) -> None:
        DBOS(
            config={
                "name": "bench",
                "system_database_url": self._dsn,
                "run_admin_server": False,
                "log_level": "WARNING",
            }
        )
        DBOS.launch()
        DBOS.register_queue(QUEUE, **self._options)

    async def prepare(self, jobs: int) -> None:
        await asyncio.to_thread(self._launch)

    async def enqueue(self, jobs: int) -> Callable[[], Awaitable[None]]:
        return await enqueue_one_by_one(self, jobs)

    async def enqueue_one(self) -> Callable[[], Awaitable[None]]:
        client = DBOSClient(system_database_url=self._dsn)

        async def go() -> None:
            await client.enqueue_async({"workflow_name": "noop", "queue_name": QUEUE})

        return go

    async def work(self, on_start: Callable[[], None]) -> None:
        # Workflows run in a thread of DBOS.
        loop = asyncio.get_running_loop()
        global handler
        handler = partial(loop.call_soon_threadsafe, on_start)
        await asyncio.to_thread(self._launch)
        await asyncio.Future()


if __name__ == "__main__":
    main(Dbos)
