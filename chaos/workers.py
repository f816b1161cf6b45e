"""Real worker processes, and what can be done to them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.failpoints import FIRED, Order
from tests.support.worker_process import ROOT, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path


@dataclass(eq=False)
class GatedWorker(WorkerProcess):
    """A worker whose steps go through a gate.

    Attributes:
        stopped: set while the process is frozen.
        ended_at: when we heard of its end, on the clock of `time.time`.
    """

    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    ended_at: float | None = None

    @property
    def folder(self) -> Path:
        """Where it leaves its log and its trace."""
        return self.log.parent

    async def stops_or_ends(self) -> None:
        """Return when the process is frozen, or has ended."""
        stopped = asyncio.ensure_future(self.stopped.wait())
        ended = asyncio.ensure_future(asyncio.wait([self.exited]))
        try:
            await asyncio.wait([stopped, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            ended.cancel()

    def order(self, order: Order) -> None:
        """Have a fault wait for a boundary of this worker."""
        pipe = os.open(self.folder / "orders", os.O_RDWR | os.O_NONBLOCK)
        try:
            os.write(pipe, order.as_line())
        finally:
            os.close(pipe)

    def trace(self) -> list[str]:
        """Return the boundaries that it passed, in order."""
        path = self.folder / "trace"
        if not path.exists():
            return []
        lines = path.read_text().splitlines()
        return [line for line in lines if not line.startswith(FIRED)]

    def fired(self) -> list[tuple[str, str]]:
        """Return what was carried out of its orders: acts and boundaries."""
        path = self.folder / "trace"
        if not path.exists():
            return []
        lines = [x[1:] for x in path.read_text().splitlines() if x.startswith(FIRED)]
        return [(act, boundary) for act, _, boundary in (line.partition(" ") for line in lines)]


class Workers:
    """Starts workers through a fork server, and hears of their ends."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._starting: dict[str, asyncio.Future[GatedWorker]] = {}
        self._pipes: list[int] = []
        self._ended: ChildProcessError | None = None
        self.all: dict[int, GatedWorker] = {}
        self.history: list[GatedWorker] = []
        self.starts: Counter[str] = Counter()

    async def start(
        self,
        *arguments: str,
        environment: Mapping[str, str],
        orders: Sequence[Order] = (),
        name: str = "worker",
    ) -> GatedWorker:
        """Start `pgworker` with these arguments, and with these faults waiting for it."""
        if self._ended is not None:
            raise self._ended
        self.starts[name] += 1
        name = f"{name}-{self.starts[name]}"
        folder = self._folder / name
        folder.mkdir()
        os.mkfifo(folder / "orders")
        # Held open by us: what is written before the worker reads must not get lost.
        pipe = os.open(folder / "orders", os.O_RDWR | os.O_NONBLOCK)
        self._pipes.append(pipe)
        for order in orders:
            os.write(pipe, order.as_line())
        started = asyncio.get_running_loop().create_future()
        self._starting[name] = started
        request = {"start": [name, arguments, dict(environment), str(folder)]}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        await self._process.stdin.drain()
        worker: GatedWorker = await started
        return worker

    def of(self, name: str) -> list[GatedWorker]:
        """Return all that were ever started under this name."""
        return [worker for worker in self.history if worker.folder.name.rpartition("-")[0] == name]

    async def hear(self) -> None:
        """Take in what the fork server tells, until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            message = json.loads(line)
            if "started" in message:
                exited = asyncio.get_running_loop().create_future()
                name = message["started"]
                worker = GatedWorker(message["pid"], self._folder / name / "log", exited)
                self.all[worker.pid] = worker
                self.history.append(worker)
                self._starting.pop(name).set_result(worker)
            elif "stopped" in message:
                self.all[message["stopped"]].stopped.set()
            else:
                worker = self.all.pop(message["exited"])
                worker.ended_at = time.time()
                worker.exited.set_result(message["status"])
        last = (self._folder / "forkserver.log").read_text().splitlines()[-1:]
        self._ended = ChildProcessError(f"the fork server ended: {''.join(last)}")
        for starting in self._starting.values():
            starting.set_exception(self._ended)

    def close(self) -> None:
        """Close what is open here."""
        for pipe in self._pipes:
            os.close(pipe)


@asynccontextmanager
async def worker_processes(folder: Path) -> AsyncIterator[Workers]:
    """Run a fork server while the block runs; no worker outlives it.

    Args:
        folder: for what workers leave behind: logs and traces.
    """
    with (folder / "forkserver.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "chaos.forkserver",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            # Ctrl-C is for the campaign, which ends its workers itself.
            start_new_session=True,
        )
    workers = Workers(process, folder)
    hearing = asyncio.create_task(workers.hear(), name="forkserver")
    try:
        yield workers
    finally:
        hearing.cancel()
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        workers.close()
