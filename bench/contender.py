"""What every contender can do, and how the bench tells it: a process, JSON on its stdout.

A contender is a module that ends with `main(ItsClass)`. It runs in its own interpreter (ours or
that of the peers), so nothing here imports pgworker. The database is named by BENCH_DSN.
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

# Jobs of one call of a bulk API.
BULK = 1000
PATIENCE_SECONDS = 400.0
# How often the end of a run is looked for, once the last handler has started.
LOOK_SECONDS = 0.005


class Contender(Protocol):
    """A queue under test, in one database and with one set of settings.

    Attributes:
        unfinished: a query that says whether there is a job that isn't durably finished.
    """

    unfinished: str

    def __init__(self, dsn: str, settings: Mapping[str, Any]) -> None:
        """Take the database and the settings that the field names."""
        ...

    async def prepare(self, jobs: int) -> None:
        """Make the schema, and what must be there before so many jobs can be enqueued."""
        ...

    async def enqueue(self, jobs: int) -> Callable[[], Awaitable[None]]:
        """Get ready to enqueue so many jobs by the bulk call, and return what does it."""
        ...

    async def enqueue_one(self) -> Callable[[], Awaitable[None]]:
        """Get ready to enqueue jobs one by one, and return what enqueues the next."""
        ...

    async def work(self, on_start: Callable[[], None]) -> None:
        """Run one worker until cancelled; `on_start` is the whole of each job."""
        ...


class Ticks:
    """Counts handlers that start, and notes when the first of interest and the last did."""

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last = first, last
        self._count = 0
        self.began = self.ended = 0.0
        self.reached = asyncio.Event()

    def tick(self) -> None:
        """Count one."""
        self._count += 1
        if self._count == self._first:
            self.began = time.perf_counter()
        if self._count == self._last:
            self.ended = time.perf_counter()
            self.reached.set()


async def work(
    contender: Contender, dsn: str, *, jobs: int, warm_up: int, to_the_end: bool
) -> dict[str, Any]:
    """Let one worker start so many jobs; return seconds from the end of the warm-up.

    To the end: until the last of them is durably finished, and nothing else may be queued.
    Otherwise until the last of them started, beside a backlog that stays.
    """
    ticks = Ticks(warm_up, jobs)
    eye = await asyncpg.connect(dsn)
    cpu = time.process_time()
    working = asyncio.create_task(contender.work(ticks.tick))
    try:
        await unless_ended(working, ticks.reached.wait())
        ended = ticks.ended
        if to_the_end:
            # What a look sees was so when it began; how long it takes is no matter of theirs.
            ended = time.perf_counter()
            while await eye.fetchval(contender.unfinished):
                await asyncio.sleep(LOOK_SECONDS)
                ended = time.perf_counter()
        cpu = time.process_time() - cpu
    finally:
        await stopped(working)
        await eye.close()
    return {
        "jobs": jobs,
        "seconds": ended - ticks.began,
        "jobs_per_second": (jobs - warm_up) / (ended - ticks.began),
        "worker_cpu_us": cpu / jobs * 1e6,
        "worker_mib": peak_mib(),
    }


async def latency(contender: Contender, *, jobs: int, warm_up: int, pause: float) -> dict[str, Any]:
    """Enqueue one job after the other for an idle worker; return ms until each one started."""
    started: asyncio.Queue[float] = asyncio.Queue()
    working = asyncio.create_task(contender.work(lambda: started.put_nowait(time.perf_counter())))
    waits = []
    try:
        enqueue = await contender.enqueue_one()
        for number in range(warm_up + jobs):
            await asyncio.sleep(pause)
            began = time.perf_counter()
            await enqueue()
            at = await unless_ended(working, started.get())
            if number >= warm_up:
                waits.append((at - began) * 1000)
    finally:
        await stopped(working)
    return {"ms": [round(wait, 4) for wait in waits]}


async def enqueue(contender: Contender, *, jobs: int) -> dict[str, Any]:
    """Enqueue so many jobs by the bulk call."""
    go = await contender.enqueue(jobs)
    began = time.perf_counter()
    await go()
    seconds = time.perf_counter() - began
    return {"jobs": jobs, "seconds": seconds, "jobs_per_second": jobs / seconds}


async def one_by_one(contender: Contender, jobs: int) -> Callable[[], Awaitable[None]]:
    """Return what enqueues so many jobs, for contenders without a bulk call."""
    enqueue_one = await contender.enqueue_one()

    async def go() -> None:
        for _ in range(jobs):
            await enqueue_one()

    return go


async def unless_ended(working: asyncio.Task[None], awaitable: Coroutine[Any, Any, T]) -> T:
    """Await something, or raise what ended the worker."""
    waiting = asyncio.ensure_future(awaitable)
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if waiting.done():
        return waiting.result()
    waiting.cancel()
    working.result()
    raise RuntimeError("the worker has left before its jobs were done")


async def stopped(working: asyncio.Task[None]) -> None:
    """Cancel the worker and wait for it; what it says while it leaves isn't measured."""
    working.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await working


def peak_mib() -> float:
    """Return the most memory that this process has had (VmHWM; ru_maxrss knows of its parent)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


async def act(contender: Contender, dsn: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Do what the command line asks for."""
    jobs, warm_up = arguments.jobs, arguments.warm_up
    async with asyncio.timeout(PATIENCE_SECONDS):
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
    """Be the process of a contender; `run` is the event loop that its own documentation takes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("prepare", "enqueue", "work", "latency"))
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two enqueues")
    parser.add_argument("--beside-backlog", action="store_true")
    parser.add_argument("--settings", type=json.loads, default={})
    arguments = parser.parse_args()
    dsn = os.environ["BENCH_DSN"]
    result = run(act(make(dsn, arguments.settings), dsn, arguments))
    # Alone on the last line: a library may print, too.
    print(f"\n{json.dumps(result)}", flush=True)
    # Threads and pools of a library that won't leave are no business of ours.
    os._exit(0)
