"""The actions of every contender, and its process, which prints its result as JSON.

A contender is a module that ends with `main(ItsClass)`. It runs in its own interpreter (ours or
that of the peers), so nothing here imports pgworker. BENCH_DSN names the database.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

T = TypeVar("T")

# Jobs in one call of a bulk API.
BULK = 1000
TIMEOUT_SECONDS = 400.0
# Between two polls for the end of a run, once the last handler has started.
POLL_SECONDS = 0.005


class Contender(Protocol):
    """A queue under test, in one database and with one set of settings.

    Attributes:
        unfinished: a query whether there is a job that isn't durably finished.
    """

    unfinished: str

    def __init__(self, dsn: str, settings: Mapping[str, Any]) -> None:
        """Take the database and the settings of the entry in `field`."""
        ...

    async def prepare(self, jobs: int) -> None:
        """Create the schema, and what must exist before so many jobs can be enqueued."""
        ...

    async def enqueue(self, jobs: int) -> Callable[[], Awaitable[None]]:
        """Prepare to enqueue so many jobs by the bulk call; return the function that does it."""
        ...

    async def enqueue_one(self) -> Callable[[], Awaitable[None]]:
        """Prepare to enqueue jobs one by one; return the function that enqueues the next one."""
        ...

    async def work(self, on_start: Callable[[], None]) -> None:
        """Run one worker until cancelled; each job does nothing but call `on_start`."""
        ...


class Ticks:
    """Counts starting handlers; records when the first after the warm-up and the last started."""

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last = first, last
        self._count = 0
        self.began = self.ended = 0.0
        self.reached = asyncio.Event()

    def tick(self) -> None:
        """Count a handler that starts."""
        self._count += 1
        if self._count == self._first:
            self.began = time.perf_counter()
        if self._count == self._last:
            self.ended = time.perf_counter()
            self.reached.set()


async def work(
    contender: Contender, dsn: str, *, jobs: int, warm_up: int, to_the_end: bool
) -> dict[str, Any]:
    """Let one worker start so many jobs; return the seconds from the end of the warm-up.

    With `to_the_end`, the run lasts until the last job is durably finished; no other jobs may be
    queued then. Otherwise it lasts until the last job has started, and a backlog remains.
    """
    ticks = Ticks(warm_up, jobs)
    observer = await asyncpg.connect(dsn)
    cpu = time.process_time()
    working = asyncio.create_task(contender.work(ticks.tick))
    try:
        await await_unless_ended(working, ticks.reached.wait())
        ended = ticks.ended
        if to_the_end:
            # A query returns the state when it began: its own duration must not count.
            ended = time.perf_counter()
            while await observer.fetchval(contender.unfinished):
                await asyncio.sleep(POLL_SECONDS)
                ended = time.perf_counter()
        cpu = time.process_time() - cpu
    finally:
        await stop(working)
        await observer.close()
    return {
        "jobs": jobs,
        "seconds": ended - ticks.began,
        "jobs_per_second": (jobs - warm_up) / (ended - ticks.began),
        "worker_cpu_us": cpu / jobs * 1e6,
        "worker_mib": read_peak_mib(),
    }


async def latency(contender: Contender, *, jobs: int, warm_up: int, pause: float) -> dict[str, Any]:
    """Enqueue jobs one by one for an idle worker; return the milliseconds until each started."""
    started: asyncio.Queue[float] = asyncio.Queue()
    working = asyncio.create_task(contender.work(lambda: started.put_nowait(time.perf_counter())))
    waits = []
    try:
        enqueue = await contender.enqueue_one()
        for number in range(warm_up + jobs):
            await asyncio.sleep(pause)
            began = time.perf_counter()
            await enqueue()
            at = await await_unless_ended(working, started.get())
            if number >= warm_up:
                waits.append((at - began) * 1000)
    finally:
        await stop(working)
    return {"ms": [round(wait, 4) for wait in waits]}


async def enqueue(contender: Contender, *, jobs: int) -> dict[str, Any]:
    """Enqueue so many jobs by the bulk call."""
    go = await contender.enqueue(jobs)
    began = time.perf_counter()
    await go()
    seconds = time.perf_counter() - began
    return {"jobs": jobs, "seconds": seconds, "jobs_per_second": jobs / seconds}


async def enqueue_one_by_one(contender: Contender, jobs: int) -> Callable[[], Awaitable[None]]:
    """Return a function that enqueues so many jobs, for contenders without a bulk call."""
    enqueue_one = await contender.enqueue_one()

    async def go() -> None:
        for _ in range(jobs):
            await enqueue_one()

    return go


async def await_unless_ended(working: asyncio.Task[None], awaitable: Coroutine[Any, Any, T]) -> T:
    """Await something, or raise the error that ended the worker."""
    waiting = asyncio.ensure_future(awaitable)
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if waiting.done():
        return waiting.result()
    waiting.cancel()
    working.result()
    raise RuntimeError("the worker ended before its jobs were done")


async def stop(working: asyncio.Task[None]) -> None:
    """Cancel the worker and wait for it; errors while it stops don't matter."""
    working.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await working


def read_peak_mib() -> float:
    """Return the peak memory of this process (VmHWM; ru_maxrss includes its parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


async def run_action(
    contender: Contender, dsn: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Run the action of the command line."""
    jobs, warm_up = arguments.jobs, arguments.warm_up
    async with asyncio.timeout(TIMEOUT_SECONDS):
        match arguments.action:
            case "prepare":
                await contender.prepare(jobs)
                return {}
            case "enqueue":
                return await enqueue(contender, jobs=jobs)
            case "latency":
                return await latency(contender, jobs=jobs, warm_up=warm_up, pause=arguments.pause)
            case _:
                return await work(
                    contender,
                    dsn,
                    jobs=jobs,
                    warm_up=warm_up,
                    to_the_end=not arguments.beside_backlog,
                )


def main(
    make: Callable[[str, Mapping[str, Any]], Contender],
    *,
    run: Callable[[Coroutine[Any, Any, dict[str, Any]]], dict[str, Any]] = asyncio.run,
) -> None:
    """Run the process of a contender; `run` is the event loop that its documentation uses."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("prepare", "enqueue", "work", "latency"))
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two enqueues")
    parser.add_argument("--beside-backlog", action="store_true")
    parser.add_argument("--settings", type=json.loads, default={})
    arguments = parser.parse_args()
    dsn = os.environ["BENCH_DSN"]
    result = run(run_action(make(dsn, arguments.settings), dsn, arguments))
    # On a line of its own, the last one: a library may print as well.
    print(f"\n{json.dumps(result)}", flush=True)
    # Don't wait for a library's threads and pools.
    os._exit(0)
