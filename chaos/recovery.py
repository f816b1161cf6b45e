"""Measures how long recovery takes at production's settings, with unmodified workers."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
from pydantic import SecretStr

from chaos.campaign import expect
from chaos.checker import Violation, check
from chaos.snapshot import take_snapshot
from chaos.testbed import (
    ENCRYPTION_KEY,
    MIGRATIONS,
    SERVER_SETTINGS,
    TEMPLATE,
    drop_tenants,
    make_template,
)
from pgworker.settings import parse_encryption_keys
from pgworker.tenants.secrets import Vault
from tests.support.clusters import Server, running_server, running_standby
from tests.support.polling import wait_until
from tests.support.worker_process import WorkerProcess, running_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

KILLED_WORKERS = 4
CLIENTS = 40

ALL_SYNCING = """
select count(*) = $1
from client_provisioning_jobs
where job_type = 'schema_sync' and status = 'running'
"""
ALL_RESCUED = """
select count(*) = $1
from pgworker.event_log
where event = 'rescued'
"""
RESCUES = """
select at, detail ->> 'silent_worker' as worker
from pgworker.event_log
where event = 'rescued'
"""
ENOUGH_READY = """
select count(*) >= $1
from clients
where provisioning_status = 'ready'
"""


@dataclass(slots=True)
class FailOver:
    """What a fail-over cost.

    Attributes:
        from_crash: seconds from the primary's crash until the first transition on the standby.
        from_promotion: seconds from when the standby took writes until that transition.
        ready_after: seconds from the crash until every client was ready.
        problems: workers that ended.
    """

    from_crash: float
    from_promotion: float
    ready_after: float
    violations: list[Violation]
    problems: list[str] = field(default_factory=list)


async def measure_rescues(server: Server, folder: Path, rng: random.Random) -> list[float]:
    """Kill workers that hold one job each; return the seconds until each job was rescued.

    Args:
        server: for platform and tenants, with the template of a platform.
        folder: for a migration that never ends, and for logs.
        rng: decides at which moments of their leases the workers are killed.
    """
    platform = "recovery"
    await server.run(f'create database "{platform}" template "{TEMPLATE}"')
    hanging = folder / "hanging"
    hanging.mkdir(parents=True)
    (hanging / "20260101000000_hangs.sql").write_text("select pg_sleep(3600);\n")
    environment = _build_environment(server.dsn_of(platform), server.dsn, hanging)
    connection = await asyncpg.connect(server.dsn_of(platform))
    killed_at: dict[str, float] = {}
    try:
        for number in range(KILLED_WORKERS):
            await connection.execute(
                "insert into clients (name, auto_provision) values ($1, true)", f"client {number}"
            )
        one_each = environment | {"PGWORKER_CONCURRENCY": "1"}
        async with _run_workers(KILLED_WORKERS, one_each, folder, name="killed") as killed:
            await wait_until(connection, ALL_SYNCING, KILLED_WORKERS)
            async with _run_workers(1, environment, folder):
                for worker in killed:
                    await asyncio.sleep(rng.uniform(1, 4))
                    await worker.kill()
                    killed_at[str(worker.pid)] = time.time()
                await wait_until(connection, ALL_RESCUED, KILLED_WORKERS)
        rows = await connection.fetch(RESCUES)
    finally:
        await connection.close()
        await server.run(f'drop database "{platform}" with (force)')
        await drop_tenants(server)
    return [row["at"].timestamp() - killed_at[row["worker"].split(":")[-2]] for row in rows]


async def measure_fail_over(tenants: Server, folder: Path) -> FailOver:
    """Crash the platform's primary while clients are provisioned, and promote its standby.

    Args:
        tenants: another server, which keeps running.
        folder: for logs.
    """
    async with (
        running_server(**SERVER_SETTINGS) as primary,
        running_standby(primary) as standby,
    ):
        await make_template(primary)
        platform = "platform"
        await primary.run(f'create database "{platform}" template "{TEMPLATE}"')
        parts = urlsplit(primary.dsn_of(platform))
        userinfo = parts.netloc.rpartition("@")[0]
        both = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        dsn = parts._replace(
            netloc=f"{userinfo}@{both}", query="target_session_attrs=read-write"
        ).geturl()
        # Two jobs at a time: there must be work left when the primary crashes.
        environment = _build_environment(dsn, tenants.dsn, MIGRATIONS) | {
            "PGWORKER_CONCURRENCY": "2"
        }
        await primary.run(
            "insert into clients (name, auto_provision)"
            f" select 'client ' || n, true from generate_series(1, {CLIENTS}) n",
            database=platform,
        )
        async with _run_workers(2, environment, folder) as workers:
            before = await asyncpg.connect(primary.dsn_of(platform))
            await wait_until(before, ENOUGH_READY, CLIENTS // 5)
            before.terminate()
            crashed_at = time.time()
            await primary.crash()
            await standby.promote()
            promoted_at = time.time()
            after = await asyncpg.connect(standby.dsn_of(platform))
            try:
                await wait_until(after, ENOUGH_READY, CLIENTS)
                ready_at = time.time()
                first = await after.fetchval(
                    "select min(at) from pgworker.event_log where at > to_timestamp($1)",
                    promoted_at,
                )
            finally:
                await after.close()
            problems = [
                f"a worker ended with {worker.exited.result()} in a fail-over"
                for worker in workers
                if not worker.is_running
            ]
        snapshot = await take_snapshot(
            {"fail-over": standby.dsn_of(platform)},
            tenants.dsn,
            vault=Vault(parse_encryption_keys((SecretStr(ENCRYPTION_KEY),))),
            ledger=None,
            logs={worker.log.name: worker.output for worker in workers},
        )
        await drop_tenants(tenants)
    return FailOver(
        from_crash=first.timestamp() - crashed_at,
        from_promotion=first.timestamp() - promoted_at,
        ready_after=ready_at - crashed_at,
        violations=check(snapshot, expect()),
        problems=problems,
    )


def _build_environment(platform: str, tenants: str, migrations: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": platform,
        "PGWORKER_PROVIDER": "postgres",
        "PGWORKER_TENANTS_URL": tenants,
        "PGWORKER_ENCRYPTION_KEYS": ENCRYPTION_KEY,
        "PGWORKER_MIGRATIONS_DIR": str(migrations),
        "PGWORKER_LOG_FORMAT": "json",
    }


@asynccontextmanager
async def _run_workers(
    count: int, environment: Mapping[str, str], folder: Path, *, name: str = "worker"
) -> AsyncIterator[list[WorkerProcess]]:
    """Run so many `pgworker run` processes while the block runs."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                running_process(folder, "run", name=f"{name}-{number}", environment=environment)
            )
            for number in range(count)
        ]
