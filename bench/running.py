"""Runs contenders, each in a process of its own, and measures what the server uses meanwhile."""

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
TIMEOUT_SECONDS = 420


class RunFailed(Exception):
    """A contender could not be measured; the message has its name and its last line of output."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a cell needs to measure.

    Attributes:
        peers_python: an interpreter that has the peers; None: they are not measured.
        scale: factor of all counts of jobs; below 1 for a quick look.
        deadline: on `time.monotonic`; after it no cell starts a second round.
    """

    server: BenchServer
    peers_python: Path | None
    rounds: int
    scale: float = 1.0
    deadline: float = math.inf

    def iterate_rounds(self) -> Iterator[int]:
        """Yield the numbers of the rounds: at least one, and as many as there is time for."""
        for number in range(1, self.rounds + 1):
            if number > 1 and time.monotonic() > self.deadline:
                return
            yield number

    def has(self, entry: Entry) -> bool:
        """Return whether the entry can be measured."""
        return entry.kind != "peer" or self.peers_python is not None

    def scale_count(self, count: int) -> int:
        """Return the count multiplied by the scale."""
        return max(10, int(count * self.scale))

    async def run(self, entry: Entry, action: str, database: str, *options: str) -> dict[str, Any]:
        """Run an action of an entry on a database; return its result.

        Raises:
            RunFailed: with its last line of output.
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
            out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
        lines = out.decode().strip().splitlines()
        if process.returncode != 0 or not lines:
            last_line = (err.decode().strip().splitlines() or ["it printed nothing"])[-1]
            raise RunFailed(f"{entry.label}, {action}: {last_line}")
        result: dict[str, Any] = json.loads(lines[-1])
        return result

    async def measure(
        self, entry: Entry, action: str, database: str, *options: str
    ) -> dict[str, Any]:
        """As `run`; adds what the server used for each job, and what other processes used."""
        before = await self.server.read_usage(database)
        ours_before, began = _read_our_cpu_seconds(), time.perf_counter()
        result = await self.run(entry, action, database, *options)
        await self.server.wait_until_unused(database)
        used = await self.server.read_usage(database) - before
        others = used.busy_seconds - used.cpu_seconds - (_read_our_cpu_seconds() - ours_before)
        jobs = result.get("jobs")
        if jobs:
            result |= {
                "server_cpu_us": used.cpu_seconds / jobs * 1e6,
                "wal_bytes": used.wal_bytes / jobs,
                "commits": used.commits / jobs,
            }
        return result | {"others_cores": others / (time.perf_counter() - began)}

    async def create_template(
        self,
        entry: Entry,
        database: str,
        *,
        prepared: int,
        enqueued: int = 0,
        paused: bool = False,
    ) -> None:
        """Create a database that runs are copies of: prepared, filled, vacuumed.

        Args:
            entry: whose database it is.
            database: its name.
            prepared: for how many jobs.
            enqueued: how many jobs.
            paused: no worker claims until it is resumed (ours only).
        """
        await self.server.create(database)
        await self.run(entry, "prepare", database, "--jobs", str(prepared))
        if paused:
            connection = await asyncpg.connect(self.server.dsn_of(database))
            await connection.execute("select pgworker.pause()")
            await connection.close()
        if enqueued:
            await self.run(entry, "enqueue", database, "--jobs", str(enqueued))
        await self.server.tidy(database)


def _read_our_cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
