"""Worker processes with failpoints, and the launcher that starts them through a fork server."""

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

from chaos.failpoints import FIRED, Failpoint
from tests.support.worker_process import ROOT, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path


@dataclass(eq=False)
class ChaosWorker(WorkerProcess):
    """A worker process with failpoints.

    Attributes:
        stopped: set while the process is frozen.
        ended_at: when its end was reported, on the clock of `time.time`.
    """

    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    ended_at: float | None = None

    @property
    def folder(self) -> Path:
        """The folder of its log and its trace."""
        return self.log.parent

    async def wait_until_frozen_or_ended(self) -> None:
        """Return when the process is frozen, or has ended."""
        stopped = asyncio.ensure_future(self.stopped.wait())
        ended = asyncio.ensure_future(asyncio.wait([self.exited]))
        try:
            await asyncio.wait([stopped, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            ended.cancel()

    def arm(self, failpoint: Failpoint) -> None:
        """Arm a failpoint of this worker."""
        pipe = os.open(self.folder / "failpoints", os.O_RDWR | os.O_NONBLOCK)
        try:
            os.write(pipe, failpoint.to_line())
        finally:
            os.close(pipe)

    def read_passed(self) -> list[str]:
        """Return the boundaries that it passed, in order."""
        return [line for line in self._read_trace() if not line.startswith(FIRED)]

    def read_fired(self) -> list[tuple[str, str]]:
        """Return the failpoints that fired: actions and boundaries."""
        lines = [line.removeprefix(FIRED) for line in self._read_trace() if line.startswith(FIRED)]
        return [(action, boundary) for action, _, boundary in (x.partition(" ") for x in lines)]

    def _read_trace(self) -> list[str]:
        path = self.folder / "trace"
        return path.read_text().splitlines() if path.exists() else []


class WorkerLauncher:
    """Starts workers through a fork server, which reports their ends.

    Attributes:
        running: workers by their pids.
        history: all workers that were ever started.
    """

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._starting: dict[str, asyncio.Future[ChaosWorker]] = {}
        self._pipes: list[int] = []
        self._ended: ChildProcessError | None = None
        self.running: dict[int, ChaosWorker] = {}
        self.history: list[ChaosWorker] = []
        self._starts: Counter[str] = Counter()

    async def start(
        self,
        *arguments: str,
        environment: Mapping[str, str],
        failpoints: Sequence[Failpoint] = (),
        name: str = "worker",
    ) -> ChaosWorker:
        """Start `pgworker` with these arguments and with these failpoints armed."""
        if self._ended is not None:
            raise self._ended
        self._starts[name] += 1
        name = f"{name}-{self._starts[name]}"
        folder = self._folder / name
        folder.mkdir()
        os.mkfifo(folder / "failpoints")
        # Kept open here: what is written before the worker opens its end must not get lost.
        pipe = os.open(folder / "failpoints", os.O_RDWR | os.O_NONBLOCK)
        self._pipes.append(pipe)
        for failpoint in failpoints:
            os.write(pipe, failpoint.to_line())
        started = asyncio.get_running_loop().create_future()
        self._starting[name] = started
        request = {"start": [name, arguments, dict(environment), str(folder)]}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        await self._process.stdin.drain()
        worker: ChaosWorker = await started
        return worker

    def get_workers(self, name: str) -> list[ChaosWorker]:
        """Return all workers that were ever started under this name."""
        return [worker for worker in self.history if worker.folder.name.rpartition("-")[0] == name]

    async def read_messages(self) -> None:
        """Handle the messages of the fork server until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            message = json.loads(line)
            if "started" in message:
                exited = asyncio.get_running_loop().create_future()
                name = message["started"]
                worker = ChaosWorker(message["pid"], self._folder / name / "log", exited)
                self.running[worker.pid] = worker
                self.history.append(worker)
                self._starting.pop(name).set_result(worker)
            elif "stopped" in message:
                self.running[message["stopped"]].stopped.set()
            else:
                worker = self.running.pop(message["exited"])
                worker.ended_at = time.time()
                worker.exited.set_result(message["status"])
        last = (self._folder / "forkserver.log").read_text().splitlines()[-1:]
        self._ended = ChildProcessError(f"the fork server ended: {''.join(last)}")
        for starting in self._starting.values():
            starting.set_exception(self._ended)

    def close(self) -> None:
        """Close the pipes that are kept open."""
        for pipe in self._pipes:
            os.close(pipe)


@asynccontextmanager
async def launch_workers(folder: Path) -> AsyncIterator[WorkerLauncher]:
    """Run a fork server while the block runs; no worker outlives it.

    Args:
        folder: for the logs and traces of workers.
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
            # Ctrl-C must reach the campaign only, which ends its workers itself.
            start_new_session=True,
        )
    launcher = WorkerLauncher(process, folder)
    reading = asyncio.create_task(launcher.read_messages(), name="fork server messages")
    try:
        yield launcher
    finally:
        reading.cancel()
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        launcher.close()
