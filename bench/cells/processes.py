"""Throughput of several real `pgworker run` processes whose one phase does nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import asyncpg

from bench import field
from bench.daemons import daemons
from bench.ours import Pgworker
from bench.rounds import Subject, in_turns

if TYPE_CHECKING:
    from bench.running import Bench

COUNTS = (1, 2, 8)
# For each of the bench: what is asked for is that nothing is lost, and two runs differ by a tenth.
ROUNDS = 2
JOBS = 60_000
# A look costs the server as much as thirty jobs.
LOOK_SECONDS = 0.1
PATIENCE_SECONDS = 180
WARMED_UP = """
select status <> 'queued' from client_provisioning_jobs
where id = (select min(id) from client_provisioning_jobs) + $1
"""
ALL_CLAIMED = "select not exists (select from client_provisioning_jobs where status = 'queued')"
DONE = """
select now() as at, count(*) as jobs from client_provisioning_jobs where status = 'succeeded'
"""


async def measure(bench: Bench) -> list[dict[str, Any]]:
    """Let workers start beside a paused backlog, resume, and count what they finish.

    The first tenth warms up: a session plans each statement when it first comes to it. The end is
    when nothing is left to claim, with as many jobs in hand as at the beginning.
    """
    bench = replace(bench, rounds=bench.rounds * ROUNDS)
    jobs = bench.scaled(JOBS)

    async def prepare(template: str) -> None:
        await bench.template(field.BEST, template, prepared=jobs, enqueued=jobs, paused=True)

    return await in_turns(
        bench,
        [
            Subject(
                {"label": f"pgworker run x {count}", "processes": count},
                "bench_template",
                prepare,
                partial(_run, bench, count, jobs),
            )
            for count in COUNTS
        ],
    )


async def _run(bench: Bench, count: int, jobs: int, database: str) -> dict[str, Any]:
    dsn = bench.server.dsn_of(database)
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
            await eye.execute("select pgworker.resume()")
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await eye.fetchval(WARMED_UP, jobs // 10):
                    await asyncio.sleep(LOOK_SECONDS / 10)
                before, began = await bench.server.usage(database), await eye.fetchrow(DONE)
                while not await eye.fetchval(ALL_CLAIMED):
                    await asyncio.sleep(LOOK_SECONDS)
                used, ended = await bench.server.usage(database) - before, await eye.fetchrow(DONE)
                while await eye.fetchval(Pgworker.unfinished):
                    await asyncio.sleep(LOOK_SECONDS)
            await eye.close()
    # A handful, as in tests, may be over before anybody looks.
    counted = max(1, ended["jobs"] - began["jobs"])
    seconds = (ended["at"] - began["at"]).total_seconds()
    return {
        "jobs": jobs,
        "seconds": seconds,
        "jobs_per_second": counted / seconds,
        "server_cpu_us": used.cpu_seconds / counted * 1e6,
        "wal_bytes": used.wal_bytes / counted,
    }
