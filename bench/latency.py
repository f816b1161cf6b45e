"""How long from an insert to the first line of the first phase, on an idle worker.

Run it with `make bench`. It starts a durable embedded PostgreSQL of its own (or uses
DATABASE_URL: it makes and drops a database there), one worker in this process, and inserts
clients one by one from a second connection. Beside it stands the floor: the time after which a
bare LISTEN connection hears of the same insert. Times are in milliseconds; compare ratios, not
machines.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import structlog

from pgworker.db.embedded import embedded_server
from pgworker.db.listen import CHANNEL, Listener
from pgworker.db.migrate import migrate
from pgworker.db.pool import connect, open_pool
from pgworker.models import Complete, Done, Job
from pgworker.queue.jobs import Jobs
from pgworker.queue.worker import Worker, WorkerSettings
from pgworker.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

INSERTS = 300
PAUSE = 0.02
INSERT = "insert into clients (id, name, auto_provision) values ($1, 'bench', true)"


async def measure(dsn: str) -> None:
    """Print the figures for an empty database."""
    connection = await connect(dsn)
    await migrate(connection)
    started: dict[UUID, asyncio.Future[float]] = {}
    heard: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def first_phase(job: Job) -> Complete:
        started[job.client_id].set_result(time.perf_counter())
        return Complete(Done())

    def on_notify(*_: object) -> None:
        if not heard.done():
            heard.set_result(time.perf_counter())

    async with open_pool(dsn) as pool, asyncio.TaskGroup() as tasks:
        jobs = Jobs(pool, worker="bench", lease=timedelta(seconds=30))
        worker = Worker(jobs, first_phase, settings=WorkerSettings(workflows=["provision"]))
        listener = Listener(dsn, worker.wake)
        tasks.create_task(worker.run(listener))
        ear = await connect(dsn)
        await ear.add_listener(CHANNEL, on_notify)
        starts, floors = [], []
        for number in range(INSERTS):
            client_id = uuid4()
            started[client_id] = asyncio.get_running_loop().create_future()
            heard = asyncio.get_running_loop().create_future()
            began = time.perf_counter()
            await connection.execute(INSERT, client_id)
            at_phase = await asyncio.wait_for(started[client_id], 10)
            at_ear = await asyncio.wait_for(heard, 10)
            if number >= INSERTS // 10:  # the first ones warm caches and connections
                starts.append((at_phase - began) * 1000)
                floors.append((at_ear - began) * 1000)
            await asyncio.sleep(PAUSE)
        worker.drain()
        await ear.close()
    await connection.close()
    show("insert -> first line of the first phase", starts)
    show("insert -> bare listener (the floor)", floors)
    print(f"ratio of the medians: {statistics.median(starts) / statistics.median(floors):.2f}")


def show(name: str, values: Sequence[float]) -> None:
    """Print median, p95 and p99."""
    cuts = statistics.quantiles(values, n=100)
    print(f"{name:42} median {cuts[49]:6.2f} ms   p95 {cuts[94]:6.2f} ms   p99 {cuts[98]:6.2f} ms")


async def main() -> None:
    """Measure on a database of our own."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    settings = load_settings()
    async with AsyncExitStack() as stack:
        if settings.database_url is not None:
            dsn = settings.database_url.get_secret_value()
        else:
            folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="pgworker-bench-"))
            )
            dsn = (await stack.enter_async_context(embedded_server(folder))).dsn
        admin = await connect(dsn)
        name = f"pgworker_bench_{uuid4().hex[:8]}"
        await admin.execute(f"create database {name}")
        try:
            await measure(urlunsplit(urlsplit(dsn)._replace(path=f"/{name}")))
        finally:
            await admin.execute(f"drop database {name} with (force)")
            await admin.close()


if __name__ == "__main__":
    asyncio.run(main())
