"""Ten thousand clients whose projects are coming up, on one real `pgworker run` process."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import asyncpg

from bench import field
from bench.daemons import running_daemons
from bench.figures import percentile
from bench.rounds import Subject, take_turns
from bench.running import RunFailed

if TYPE_CHECKING:
    from bench.running import Bench

CLIENTS = 10_000
# For two thousand polls a second: the more run at a time, the fewer statements they need.
CONCURRENCY = 200
INTERVAL_SECONDS = 5
WARM_UP_SECONDS = 10
MEASURED_SECONDS = 25
REFS = "update clients set project_ref = 'ref-' || id"
# Not due while the worker starts.
JOBS = """
insert into client_provisioning_jobs (client_id, job_type, run_at)
select id, 'await_project', now() + interval '1 hour' from clients
"""
# Spread over one interval, like those of clients that were inserted one after the other.
BEGIN = "update client_provisioning_jobs set run_at = now() + $1 * random() * interval '1 second'"
CONNECTIONS = """
select count(*) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""
OVERDUE = """
select extract(epoch from now() - run_at)::float as late from client_provisioning_jobs
where status in ('queued', 'waiting') and run_at < now()
"""


async def measure(bench: Bench) -> list[dict[str, Any]]:
    """Poll each client's project every 5 s for a while; measure the delays of the polls."""
    clients = bench.scale_count(CLIENTS)

    async def prepare(template: str) -> None:
        await bench.create_template(field.BEST, template, prepared=clients)
        connection = await asyncpg.connect(bench.server.dsn_of(template))
        await connection.execute(REFS)
        await connection.execute(JOBS)
        await connection.close()
        await bench.server.tidy(template)

    description = {"label": f"{clients:,} clients", "clients": clients}
    return await take_turns(
        bench, [Subject(description, "bench_template", prepare, partial(_run, bench))]
    )


async def _run(bench: Bench, database: str) -> dict[str, Any]:
    dsn = bench.server.dsn_of(database)
    observer = await asyncpg.connect(dsn)
    with TemporaryDirectory(prefix="pgworker-bench-") as folder:
        notes = Path(folder, "notes.json")
        async with running_daemons(
            1,
            dsn,
            Path(folder),
            PGWORKER_WORKFLOW="bench.workflows:AWAITING",
            PGWORKER_CONCURRENCY=str(CONCURRENCY),
            PGWORKER_PROJECT_POLL_SECONDS=str(INTERVAL_SECONDS),
            PGWORKER_PROJECT_TIMEOUT_SECONDS="86400",
            BENCH_NOTES=str(notes),
        ):
            await observer.execute(BEGIN, INTERVAL_SECONDS)
            await observer.execute("select pg_notify('pgworker', 'bench')")
            await asyncio.sleep(WARM_UP_SECONDS)
            before = await bench.server.read_usage(database)
            began = time.monotonic()
            connections = 0
            while time.monotonic() < began + MEASURED_SECONDS:
                connections = max(connections, await observer.fetchval(CONNECTIONS))
                await asyncio.sleep(0.5)
            ended = time.monotonic()
            overdue = [row["late"] for row in await observer.fetch(OVERDUE)]
            used = await bench.server.read_usage(database) - before
        await observer.close()
        if not notes.exists():
            raise RunFailed("pgworker run left no notes")
        noted = json.loads(notes.read_text())
    polls = [late for at, late in noted["polls"] if began <= at <= ended]
    # The delay of a poll that is overdue at the end is at least so long.
    late = polls + overdue
    if not polls:
        raise RunFailed("no client was polled a second time")
    return {
        "seconds": ended - began,
        "looks_per_second": len(polls) / (ended - began),
        "late_p50_s": percentile(late, 50),
        "late_p99_s": percentile(late, 99),
        "late_max_s": max(late),
        "connections": connections,
        "worker_mib": noted["peak_mib"],
        "server_cores": used.cpu_seconds / (ended - began),
    }
