"""`pgworker run` as a process of its own, and what it says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sysconfig
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROGRAM = Path(sysconfig.get_path("scripts"), "pgworker")
ROOT = Path(__file__).parents[2]
KEY = "test:" + "A" * 43 + "="
PATIENCE_SECONDS = 60

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


class WorkerProcess:
    """A running `pgworker run`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    @property
    def said(self) -> str:
        """All that it wrote so far."""
        return self._log.read_text()

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

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def leave(self) -> int:
        """Tell it to leave; return its exit code."""
        self.send(signal.SIGTERM)
        return await asyncio.wait_for(self._process.wait(), PATIENCE_SECONDS)

    async def wait(self) -> int:
        return await asyncio.wait_for(self._process.wait(), PATIENCE_SECONDS)


@asynccontextmanager
async def a_worker(
    folder: Path, *arguments: str, name: str = "worker", **variables: str
) -> AsyncIterator[WorkerProcess]:
    """Start a worker in an empty working directory; it is killed at the end if it still runs."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **QUICK, **variables}
    log = folder / f"{name}.log"
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *(arguments or ("run",)),
            cwd=folder,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    try:
        yield WorkerProcess(process, log)
    finally:
        if process.returncode is None:
            process.kill()
        await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
