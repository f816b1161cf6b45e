"""How many requests the provider refuses (429) when many workers share one token.

Run it with `.venv/bin/python -m bench.rate_limit`; it is no part of `make bench`, having no peer.
It starts a durable embedded PostgreSQL of its own, the simulator of the Management API with a low
rate limit, and so many worker processes; then it inserts all clients at once. That is done twice:
with workers that share the rate limit through PostgreSQL, and with workers that each follow only
the headers of their own answers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from bench.running import ROOT
from bench.server import bench_server
from pgworker import context
from pgworker.db.migrate import migrate
from pgworker.db.pool import connect
from pgworker.providers.rate_limits import LocalLimiter
from pgworker.runtime.daemon import Daemon
from pgworker.settings import load_settings
from pgworker.simulator import Simulator, SimulatorSettings, running_simulator

if TYPE_CHECKING:
    from pgworker.db.pool import Pool

ALONE, SHARED = "each on its own", "sharing the limit"
INSERT = (
    "insert into clients (name, auto_provision)"
    " select 'client ' || n, true from generate_series(1, $1::int) n"
)
READY = "select count(*) from clients where provisioning_status = 'ready'"
FAILED_ATTEMPTS = "select count(*) from pgworker.event_log where event in ('backed_off', 'failed')"


async def work(mode: str) -> None:
    """Run one of the workers until no job is left."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    if mode == ALONE:

        def follow_own_answers(_: Pool) -> LocalLimiter:
            return LocalLimiter()

        setattr(context, "SharedLimiter", follow_own_answers)  # noqa: B010
    async with context.open_platform(load_settings()) as opened:
        await Daemon(opened, until_empty=True).run()


async def run_workers(count: int, mode: str, dsn: str, simulator: Simulator) -> None:
    """Run so many worker processes to their end."""
    environment = {
        "DATABASE_URL": dsn,
        "PGWORKER_PROVIDER": "supabase",
        "PGWORKER_ENCRYPTION_KEYS": "bench:" + "A" * 43 + "=",
        "PGWORKER_PROJECT_POLL_SECONDS": "1",
        "PGWORKER_MIGRATIONS_DIR": str(ROOT / "supabase" / "migrations"),
        "SUPABASE_ACCESS_TOKEN": simulator.token,
        "SUPABASE_ORG_ID": simulator.organization,
        "SUPABASE_API_URL": simulator.url,
        "PGWORKER_SUPABASE_PROJECT_URL": simulator.project_url_template,
        "PGWORKER_SUPABASE_POOLER_HOSTS": "127.0.0.1",
        "PGWORKER_SUPABASE_POOLER_PORT": str(simulator.pooler_port),
    }
    command = (sys.executable, "-m", "bench.rate_limit", "--work", mode)
    workers = [
        await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=os.environ | environment)
        for _ in range(count)
    ]
    try:
        codes = await asyncio.gather(*(worker.wait() for worker in workers))
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
    assert not any(codes), f"a worker failed: {codes}"


async def measure(arguments: argparse.Namespace, mode: str, dsn: str) -> None:
    """Provision all clients in an empty database; print what the simulator counted."""
    connection = await connect(dsn)
    await migrate(connection)
    await connection.execute(INSERT, arguments.clients)
    settings = SimulatorSettings(
        admin_dsn=dsn,
        rate_limit=arguments.limit,
        rate_window_seconds=arguments.window,
        coming_up_seconds=1.0,
    )
    async with running_simulator(settings) as simulator:
        began = time.perf_counter()
        await run_workers(arguments.workers, mode, dsn, simulator)
        seconds = time.perf_counter() - began
        counted = [entry for entry in simulator.ledger.entries if entry.path.startswith("/v1/")]
        refused = Counter(entry.operation for entry in counted if entry.status == 429)
    ready, attempts = await connection.fetchval(READY), await connection.fetchval(FAILED_ATTEMPTS)
    await connection.close()
    total = refused.total()
    print(
        f"{mode:18} {len(counted):5} requests, {total:5} refused:"
        f" {1000 * total / len(counted):6.1f} of 1,000; {ready} of {arguments.clients} clients"
        f" ready in {seconds:.0f} s; failed attempts: {attempts}"
    )
    for operation, times in refused.most_common():
        print(f"{'':18} {times:5} of them {operation}")


async def main(arguments: argparse.Namespace) -> None:
    """Measure both modes, each on a database of its own."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    print(
        f"{arguments.workers} workers, {arguments.clients} clients, "
        f"{arguments.limit} requests per {arguments.window:g} s and bucket",
        flush=True,
    )
    async with bench_server(ROOT / "build" / "bench") as server:
        for mode in (ALONE, SHARED):
            await server.create("bench_run")
            await measure(arguments, mode, server.dsn_of("bench_run"))
            await server.drop("bench_run")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--limit", type=int, default=30, help="requests in a window")
    parser.add_argument("--window", type=float, default=5.0, help="seconds of a window")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    chosen = parse_arguments()
    asyncio.run(work(chosen.work) if chosen.work else main(chosen))
