"""Real `pgworker run` processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from bench.running import ROOT, RunFailed
from pgworker.context import generate_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TIMEOUT_SECONDS = 120
# Variables of the shell that runs the bench must not reach the measured processes.
REMOVED = ("PGWORKER_", "SUPABASE_", "DATABASE_URL", "OTEL_")
STARTED = "select count(*) from pgworker.workers where state = 'running'"


@asynccontextmanager
async def running_daemons(
    count: int, dsn: str, folder: Path, *arguments: str, **variables: str
) -> AsyncIterator[None]:
    """Run so many processes while the block runs; it starts once all of them work.

    Args:
        count: of processes.
        dsn: of the platform's database.
        folder: for their log, and their working directory.
        *arguments: of `pgworker run`.
        **variables: of the environment, added to the usual ones.
    """
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith(REMOVED)},
        "DATABASE_URL": dsn,
        "PGWORKER_PROVIDER": "postgres",
        "PGWORKER_ENCRYPTION_KEYS": generate_key("bench"),
        "PGWORKER_MIGRATIONS_DIR": str(ROOT / "supabase" / "migrations"),
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    log = folder / "pgworker.log"
    with log.open("wb") as sink:
        processes = [
            await asyncio.create_subprocess_exec(
                Path(sys.executable).with_name("pgworker"),
                *("run", *arguments),
                cwd=folder,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
            for _ in range(count)
        ]
        try:
            await _wait_until_started(processes, dsn, log)
            yield
        finally:
            await _stop(processes)


async def _stop(processes: list[asyncio.subprocess.Process]) -> None:
    """Send SIGTERM and wait until all have ended; those that are too slow are killed."""
    for process in processes:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            for process in processes:
                await process.wait()
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()


async def _wait_until_started(
    processes: list[asyncio.subprocess.Process], dsn: str, log: Path
) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while await connection.fetchval(STARTED) < len(processes):
                if any(process.returncode is not None for process in processes):
                    last_line = log.read_text().strip().splitlines()[-1:]
                    raise RunFailed(f"pgworker run has ended: {''.join(last_line)}")
                await asyncio.sleep(0.05)
    finally:
        await connection.close()
