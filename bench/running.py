"""Runs contenders, each in a process of its own, beside what the server uses meanwhile."""

from __future__ import annotations

import asyncio
import json
import math
import os
import resource
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.field import Entry
    from bench.server import BenchServer

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 420


class RunFailed(Exception):
    """A contender could not be measured; the message says whose, and its last words."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What cells measure with.

    Attributes:
        peers_python: an interpreter that has the peers; None leaves them out.
        scale: of all counts of jobs; below 1 for a quick look.
        deadline: on `time.monotonic`; after it no cell begins a second round.
    """

    server: BenchServer
    peers_python: Path | None
    rounds: int
    scale: float = 1.0
    deadline: float = math.inf

    def turns(self) -> Iterator[int]:
        """Number the rounds, as many as there is time for, and one at least."""
        for number in range(1, self.rounds + 1):
            if number > 1 and time.monotonic() > self.deadline:
                return
            yield number

    def takes(self, entry: Entry) -> bool:
        """Tell whether the entry can take part."""
        return entry.kind != "peer" or self.peers_python is not None

    def scaled(self, count: int) -> int:
        """Return the count at our scale."""
        return max(10, int(count * self.scale))

    async def run(self, entry: Entry, action: str, database: str, *options: str) -> dict[str, Any]:
        """Let an entry's process act on a database; return what it measured.

        Raises:
            RunFailed: with its last words.
        """
        python = str(self.peers_python) if entry.kind == "peer" else sys.executable
        process = await asyncio.create_subprocess_exec(
            python,
            *("-m", entry.module, action, "--settings", json.dumps(dict(entry.settings))),
            *options,
            cwd=ROOT,
            env=os.environ | {"BENCH_DSN": self.server.dsn_of(database), "PYTHONPATH": str(ROOT)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
        lines = out.decode().strip().splitlines()
        if process.returncode != 0 or not lines:
            last_words = (err.decode().strip().splitlines() or ["it said nothing"])[-1]
            raise RunFailed(f"{entry.label}, {action}: {last_words}")
        result: dict[str, Any] = json.loads(lines[-1])
        return result

    async def measure(
        self, entry: Entry, action: str, database: str, *options: str
    ) -> dict[str, Any]:
        """Do what `run` does, and add what the server used for each job, and what others used."""
        before = await self.server.usage(database)
        ours_before, began = _our_cpu_seconds(), time.perf_counter()
        result = await self.run(entry, action, database, *options)
        await self.server.gone(database)
        used = await self.server.usage(database) - before
        others = used.busy_seconds - used.cpu_seconds - (_our_cpu_seconds() - ours_before)
        jobs = result.get("jobs")
        if jobs:
            result |= {
                "server_cpu_us": used.cpu_seconds / jobs * 1e6,
                "wal_bytes": used.wal_bytes / jobs,
                "commits": used.commits / jobs,
            }
        return result | {"others_cores": others / (time.perf_counter() - began)}

    async def template(
        self,
        entry: Entry,
        database: str,
        *,
        prepared: int,
        enqueued: int = 0,
        paused: bool = False,
    ) -> None:
        """Make a database to copy runs from: prepared, so many jobs enqueued, tidy.

        Args:
            paused: no worker claims, until resumed (ours only).
        """
        await self.server.create(database)
        await self.run(entry, "prepare", database, "--jobs", str(prepared))
        if paused:
            connection = await asyncpg.connect(self.server.dsn_of(database))
            await connection.execute("select pgworker.pause()")
            await connection.close()
        if enqueued:
            await self.run(entry, "enqueue", database, "--jobs", str(enqueued))
        await self.server.settle(database)


def _our_cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
