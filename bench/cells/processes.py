"""Throughput of several real `pgworker run` processes whose one phase does nothing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import asyncpg

from bench import field
from bench.daemons import daemons
from bench.ours import Pgworker
from bench.rounds import failed, tell
from bench.running import RunFailed

if TYPE_CHECKING:
    from bench.running import Bench

COUNTS = (1, 2, 4, 8)
JOBS = 20_000
TEMPLATE = "bench_template"
PATIENCE_SECONDS = 180


async def measure(bench: Bench) -> list[dict[str, Any]]:
    """Let workers start beside a paused backlog, resume, and wait until it is worked off."""
    jobs = bench.scaled(JOBS)
    await bench.template(field.BEST, TEMPLATE, prepared=jobs, enqueued=jobs, paused=True)
    runs = []
    for round_number in bench.turns():
        for count in COUNTS:
            await bench.server.copy(TEMPLATE, "bench_run")
            told = {"processes": count, "label": f"pgworker run x {count}", "round": round_number}
            try:
                runs.append(told | await _run(bench, count, jobs))
            except RunFailed as error:
                runs.append(failed(field.BEST, error) | told)
            else:
                tell(runs[-1])
    await bench.server.drop("bench_run")
    await bench.server.drop(TEMPLATE)
    return runs


async def _run(bench: Bench, count: int, jobs: int) -> dict[str, Any]:
    dsn = bench.server.dsn_of("bench_run")
    concurrency = str(field.BEST.settings["concurrency"])
    with TemporaryDirectory(prefix="pgworker-bench-") as folder:
        async with daemons(
            count,
            dsn,
            Path(folder),
            *("--concurrency", concurrency),
            PGWORKER_WORKFLOW="bench.workflows:NO_OP",
        ):
            eye = await asyncpg.connect(dsn)
            before = await bench.server.usage("bench_run")
            began = time.perf_counter()
            await eye.execute("select pgworker.resume()")
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await eye.fetchval(Pgworker.unfinished):
                    await asyncio.sleep(0.02)
            seconds = time.perf_counter() - began
            used = await bench.server.usage("bench_run") - before
            await eye.close()
    return {
        "jobs": jobs,
        "seconds": seconds,
        "jobs_per_second": jobs / seconds,
        "server_cpu_us": used.cpu_seconds / jobs * 1e6,
        "wal_bytes": used.wal_bytes / jobs,
    }
