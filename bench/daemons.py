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

PATIENCE_SECONDS = 120
# Settings of whoever runs the bench, which would be measured, too.
OURS = ("PGWORKER_", "SUPABASE_", "DATABASE_URL", "OTEL_")
STARTED = "select count(*) from pgworker.workers where state = 'running'"


@asynccontextmanager
async def daemons(
    count: int, dsn: str, folder: Path, *arguments: str, **variables: str
) -> AsyncIterator[None]:
    """Start so many and wait until all of them work; at the end they are told to leave.

    Args:
        folder: where their logs go, and where they run.
    """
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith(OURS)},
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
            await _all_work(processes, dsn, log)
            yield
        finally:
            await _leave(processes)


async def _leave(processes: list[asyncio.subprocess.Process]) -> None:
    """Tell them to leave and wait for it; who doesn't manage in time is killed."""
    for process in processes:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            for process in processes:
                await process.wait()
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()


async def _all_work(processes: list[asyncio.subprocess.Process], dsn: str, log: Path) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await connection.fetchval(STARTED) < len(processes):
                if any(process.returncode is not None for process in processes):
                    last_words = log.read_text().strip().splitlines()[-1:]
                    raise RunFailed(f"pgworker run has left: {''.join(last_words)}")
                await asyncio.sleep(0.05)
    finally:
        await connection.close()
