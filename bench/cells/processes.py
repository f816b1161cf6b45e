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
from bench.daemons import running_daemons
from bench.ours import Pgworker
from bench.rounds import Subject, take_turns

if TYPE_CHECKING:
    from bench.running import Bench

COUNTS = (1, 2, 8)
# For each round of the bench: two runs differ by a tenth.
ROUNDS = 2
JOBS = 60_000
# Not shorter: a poll costs the server as much as thirty jobs.
POLL_SECONDS = 0.1
TIMEOUT_SECONDS = 180
WARMED_UP = """
select status <> 'queued' from client_provisioning_jobs
where id = (select min(id) from client_provisioning_jobs) + $1
"""
ALL_CLAIMED = "select not exists (select from client_provisioning_jobs where status = 'queued')"
DONE = """
select now() as at, count(*) as jobs from client_provisioning_jobs where status = 'succeeded'
"""


async def measure(bench: Bench) -> list[dict[str, Any]]:
    """Start workers with a paused backlog, resume, and count the jobs that they finish.

    The first tenth is the warm-up: a session plans each statement at its first use. The end is when
    no job is left to claim: the same number of jobs is running then as at the beginning.
    """
    bench = replace(bench, rounds=bench.rounds * ROUNDS)
    jobs = bench.scale_count(JOBS)

    async def prepare(template: str) -> None:
        await bench.create_template(field.BEST, template, prepared=jobs, enqueued=jobs, paused=True)

    return await take_turns(
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
        async with running_daemons(
            count,
            dsn,
            Path(folder),
            *("--concurrency", concurrency),
            PGWORKER_WORKFLOW="bench.workflows:NO_OP",
        ):
            observer = await asyncpg.connect(dsn)
            await observer.execute("select pgworker.resume()")
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while not await observer.fetchval(WARMED_UP, jobs // 10):
                    await asyncio.sleep(POLL_SECONDS / 10)
                before, began = (
                    await bench.server.read_usage(database),
                    await observer.fetchrow(DONE),
                )
                while not await observer.fetchval(ALL_CLAIMED):
                    await asyncio.sleep(POLL_SECONDS)
                used, ended = (
                    await bench.server.read_usage(database) - before,
                    await observer.fetchrow(DONE),
                )
                while await observer.fetchval(Pgworker.unfinished):
                    await asyncio.sleep(POLL_SECONDS)
            await observer.close()
    # Very few jobs, as in tests, may be finished before the first poll.
    counted = max(1, ended["jobs"] - began["jobs"])
    seconds = (ended["at"] - began["at"]).total_seconds()
    return {
        "jobs": jobs,
        "seconds": seconds,
        "jobs_per_second": counted / seconds,
        "server_cpu_us": used.cpu_seconds / counted * 1e6,
        "wal_bytes": used.wal_bytes / counted,
    }
