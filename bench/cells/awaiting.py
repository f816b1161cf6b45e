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
from bench.daemons import daemons
from bench.figures import percentile
from bench.rounds import Subject, in_turns
from bench.running import RunFailed

if TYPE_CHECKING:
    from bench.running import Bench

CLIENTS = 10_000
# Two thousand looks a second: more at a time make fewer statements of them.
CONCURRENCY = 200
INTERVAL_SECONDS = 5
SETTLING_SECONDS = 10
MEASURED_SECONDS = 25
REFS = "update clients set project_ref = 'ref-' || id"
# Far away while the worker starts.
JOBS = """
insert into client_provisioning_jobs (client_id, job_type, run_at)
select id, 'await_project', now() + interval '1 hour' from clients
"""
# Spread over one interval, as clients that signed up one after the other are.
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
    """Look at each client every 5 s for a while; note how late the looks come."""
    clients = bench.scaled(CLIENTS)

    async def prepare(template: str) -> None:
        await bench.template(field.BEST, template, prepared=clients)
        connection = await asyncpg.connect(bench.server.dsn_of(template))
        await connection.execute(REFS)
        await connection.execute(JOBS)
        await connection.close()
        await bench.server.settle(template)

    told = {"label": f"{clients:,} clients", "clients": clients}
    return await in_turns(bench, [Subject(told, "bench_template", prepare, partial(_run, bench))])


async def _run(bench: Bench, database: str) -> dict[str, Any]:
    dsn = bench.server.dsn_of(database)
    eye = await asyncpg.connect(dsn)
    with TemporaryDirectory(prefix="pgworker-bench-") as folder:
        notes = Path(folder, "notes.json")
        async with daemons(
            1,
            dsn,
            Path(folder),
            PGWORKER_WORKFLOW="bench.workflows:AWAITING",
            PGWORKER_CONCURRENCY=str(CONCURRENCY),
            PGWORKER_PROJECT_POLL_SECONDS=str(INTERVAL_SECONDS),
            PGWORKER_PROJECT_TIMEOUT_SECONDS="86400",
            BENCH_NOTES=str(notes),
        ):
            await eye.execute(BEGIN, INTERVAL_SECONDS)
            await eye.execute("select pg_notify('pgworker', 'bench')")
            await asyncio.sleep(SETTLING_SECONDS)
            before = await bench.server.usage(database)
            began = time.monotonic()
            connections = 0
            while time.monotonic() < began + MEASURED_SECONDS:
                connections = max(connections, await eye.fetchval(CONNECTIONS))
                await asyncio.sleep(0.5)
            ended = time.monotonic()
            overdue = [row["late"] for row in await eye.fetch(OVERDUE)]
            used = await bench.server.usage(database) - before
        await eye.close()
        if not notes.exists():
            raise RunFailed("pgworker run left no notes")
        noted = json.loads(notes.read_text())
    looks = [late for at, late in noted["looks"] if began <= at <= ended]
    # Whoever still waits for a look at the end is as late as that, at least.
    late = looks + overdue
    if not looks:
        raise RunFailed("no client was looked at a second time")
    return {
        "seconds": ended - began,
        "looks_per_second": len(looks) / (ended - began),
        "late_p50_s": percentile(late, 50),
        "late_p99_s": percentile(late, 99),
        "late_max_s": max(late),
        "connections": connections,
        "worker_mib": noted["peak_mib"],
        "server_cores": used.cpu_seconds / (ended - began),
    }
