"""Workers as processes of their own, what is done to them and what they say."""

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

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

PROGRAM = Path(sysconfig.get_path("scripts"), "pgworker")
ROOT = Path(__file__).parents[2]
KEY = "test:" + "A" * 43 + "="
PATIENCE_SECONDS = 120

# A quick worker: what takes half a minute by default takes a few seconds here.
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
# The default. A worker's statement time-out is a fraction of it: a database that is slow, as
# is everything on a busy machine, isn't called away at once.
PATIENT = {"PGWORKER_LEASE_SECONDS": "30"}


@dataclass(eq=False)
class WorkerProcess:
    """A worker in a process of its own, however it was started.

    Attributes:
        log: the file that it writes to.
        exited: its exit code, negative for a signal.
    """

    pid: int
    log: Path
    exited: asyncio.Future[int]

    @property
    def is_running(self) -> bool:
        return not self.exited.done()

    @property
    def said(self) -> str:
        """All that it wrote so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Return its log's lines so far, those of these names."""
        lines = [json.loads(line) for line in self.said.splitlines() if line.startswith("{")]
        return [line for line in lines if not names or line["event"] in names]

    async def until(self, event: str, *, count: int = 1) -> list[dict[str, Any]]:
        """Wait until it has said this so often; return what it said."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(found := self.events(event)) < count:
                assert self.is_running, self.said
                await asyncio.sleep(0.02)
        return found

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; return whether there was a process to take it."""
        if not self.is_running:
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False

    async def wait(self) -> int:
        """Return its exit code, once it has ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.wait({self.exited})
        return self.exited.result()

    async def leave(self) -> int:
        """Tell it to leave; return its exit code."""
        self.send(signal.SIGTERM)
        return await self.wait()

    async def kill(self) -> bool:
        """Kill it; return whether that is what ended it."""
        return self.send(signal.SIGKILL) and await self.wait() == -signal.SIGKILL


@asynccontextmanager
async def a_worker(
    folder: Path, *arguments: str, name: str = "worker", **variables: str
) -> AsyncIterator[WorkerProcess]:
    """Start a quick worker in an empty working directory, and kill it at the end if need be."""
    environment = {**QUICK, **variables}
    async with a_process(folder, *arguments, name=name, environment=environment) as worker:
        yield worker


@asynccontextmanager
async def a_process(
    folder: Path, *arguments: str, name: str, environment: Mapping[str, str]
) -> AsyncIterator[WorkerProcess]:
    """Start `pgworker` with nothing but this environment, and our PATH."""
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
            # Ctrl-C is for the tests, which end their workers themselves.
            start_new_session=True,
        )
    worker = WorkerProcess(process.pid, log, asyncio.ensure_future(process.wait()))
    try:
        yield worker
    finally:
        await worker.kill()
