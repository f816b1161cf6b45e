"""pgworker as a contender: a real `Worker` with all guarantees, whose phase does nothing."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog
import uvloop

from bench.contender import BULK, main
from pgworker.db.listen import Listener
from pgworker.db.migrate import migrate
from pgworker.db.pool import connect, open_pool
from pgworker.models import Complete, Done, Job
from pgworker.queue.jobs import Jobs
from pgworker.queue.worker import Worker, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

CLIENTS = "insert into clients (name) select 'client ' || n from generate_series(1, $1::int) n"
# In the order of the table, as jobs of inserted clients come.
FREE_CLIENTS = (
    "select id from clients c where not exists"
    " (select from client_provisioning_jobs j where j.client_id = c.id) order by ctid limit $1"
)
ENQUEUE = "insert into client_provisioning_jobs (client_id) select unnest($1::uuid[])"
LEASE = timedelta(seconds=30)


class Pgworker:
    """Settings: `concurrency`."""

    # Three queries, because each status has its own index.
    unfinished = (
        "select exists (select from client_provisioning_jobs where status = 'queued')"
        " or exists (select from client_provisioning_jobs where status = 'running')"
        " or exists (select from client_provisioning_jobs where status = 'waiting')"
    )

    def __init__(self, dsn: str, settings: Mapping[str, Any]) -> None:
        self._dsn = dsn
        self._settings = settings

    async def prepare(self, jobs: int) -> None:
        connection = await connect(self._dsn)
        await migrate(connection)
        await connection.execute(CLIENTS, jobs, timeout=600)
        await connection.close()

    async def enqueue(self, jobs: int) -> Callable[[], Awaitable[None]]:
        connection = await connect(self._dsn)
        clients = [row["id"] for row in await connection.fetch(FREE_CLIENTS, jobs, timeout=600)]
        assert len(clients) == jobs, "prepare must create enough clients first"
        calls = [clients[start : start + BULK] for start in range(0, jobs, BULK)]
        statement = await connection.prepare(ENQUEUE)

        async def go() -> None:
            for call in calls:
                await statement.fetch(call)

        return go

    async def enqueue_one(self) -> Callable[[], Awaitable[None]]:
        connection = await connect(self._dsn)
        clients = [row["id"] for row in await connection.fetch(FREE_CLIENTS, BULK)]
        statement = await connection.prepare(ENQUEUE)

        async def go() -> None:
            await statement.fetch([clients.pop()])

        return go

    async def work(self, on_start: Callable[[], None]) -> None:
        async def no_op(_: Job) -> Complete:
            on_start()
            return Complete(Done())

        async with open_pool(self._dsn) as pool:
            worker = Worker(
                Jobs(pool, worker="bench", lease=LEASE),
                no_op,
                settings=WorkerSettings(workflows=["provision"], **self._settings),
            )
            await worker.run(Listener(self._dsn, worker.wake))


if __name__ == "__main__":
    # As quiet as the peers are by default: warnings and errors.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    # The event loop of `pgworker run`.
    main(Pgworker, run=uvloop.run)
