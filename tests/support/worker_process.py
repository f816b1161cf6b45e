"""Workers as processes of their own: how tests start, signal and observe them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sysconfig
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.polling import TIMEOUT_SECONDS, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

PROGRAM = Path(sysconfig.get_path("scripts"), "pgworker")
ROOT = Path(__file__).parents[2]
KEY = "test:" + "A" * 43 + "="

# Settings of a quick worker: what takes half a minute by default takes a few seconds.
QUICK = {
    "PGWORKER_ENCRYPTION_KEYS": KEY,
    "PGWORKER_MIGRATIONS_DIR": str(ROOT / "supabase" / "migrations"),
    "PGWORKER_PROVIDER": "postgres",
    "PGWORKER_LEASE_SECONDS": "6",
    "PGWORKER_POLL_SECONDS": "1",
    "PGWORKER_PROJECT_POLL_SECONDS": "0.2",
    "PGWORKER_BACKOFF_SECONDS": "0.2",
    "PGWORKER_BACKOFF_CAP_SECONDS": "1",
    "PGWORKER_LOG_FORMAT": "json",
}
# With the default lease a worker waits longer for its database, which may be slow on a busy
# machine: the time-outs of its statements are fractions of the lease.
DEFAULT_LEASE = {"PGWORKER_LEASE_SECONDS": "30"}


@dataclass(eq=False)
class WorkerProcess:
    """A worker in a process of its own.

    Attributes:
        log: the file of its output.
        exited: its exit code, negative for a signal.
    """

    pid: int
    log: Path
    exited: asyncio.Future[int]

    @property
    def is_running(self) -> bool:
        return not self.exited.done()

    @property
    def output(self) -> str:
        """Its output so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Return the events of its log so far, those with one of these names."""
        lines = [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]
        return [line for line in lines if not names or line["event"] in names]

    async def wait_for(self, event: str, *, count: int = 1) -> list[dict[str, Any]]:
        """Wait until it has logged this event so often; return all of them."""

        def find() -> list[dict[str, Any]]:
            has_ended = not self.is_running
            found = self.events(event)
            assert len(found) >= count or not has_ended, self.output
            return found if len(found) >= count else []

        return await eventually(find)

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; return whether the process still existed."""
        if not self.is_running:
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False

    async def wait(self) -> int:
        """Return its exit code, once it has ended."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await asyncio.wait({self.exited})
        return self.exited.result()

    async def stop(self) -> int:
        """Send SIGTERM; return its exit code."""
        self.send(signal.SIGTERM)
        return await self.wait()

    async def kill(self) -> bool:
        """Kill it; return whether it ended by that."""
        return self.send(signal.SIGKILL) and await self.wait() == -signal.SIGKILL


@asynccontextmanager
async def running_worker(
    folder: Path, *arguments: str, name: str = "worker", **variables: str
) -> AsyncIterator[WorkerProcess]:
    """Run a quick worker while the block runs; it is killed at the end if it still runs."""
    environment = {**QUICK, **variables}
    async with running_process(folder, *arguments, name=name, environment=environment) as worker:
        yield worker


@asynccontextmanager
async def running_process(
    folder: Path, *arguments: str, name: str, environment: Mapping[str, str]
) -> AsyncIterator[WorkerProcess]:
    """Run `pgworker` with only this environment and our PATH while the block runs."""
    log = folder / f"{name}.log"
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *(arguments or ("run",)),
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            # Ctrl-C must reach the tests only, which end their workers themselves.
            start_new_session=True,
        )
    worker = WorkerProcess(process.pid, log, asyncio.ensure_future(process.wait()))
    try:
        yield worker
    finally:
        await worker.kill()
