"""How long recovery takes at production's settings, with workers as anybody starts them."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
from pydantic import SecretStr

from chaos.campaign import expected
from chaos.checker import Violation, check
from chaos.snapshot import gather
from chaos.testbed import KEY, MIGRATIONS, SERVER, TEMPLATE, drop_tenants, make_template
from pgworker.settings import parse_encryption_keys
from pgworker.tenants.secrets import Vault
from tests.support.clusters import Server, a_server, a_standby
from tests.support.worker_process import WorkerProcess, a_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

VICTIMS = 4
CLIENTS = 40
PATIENCE_SECONDS = 120


@dataclass(slots=True)
class FailOver:
    """What a fail-over cost.

    Attributes:
        from_fall: seconds from the primary's end until the first transition on the standby.
        from_promotion: seconds from when it took writes.
        ready_after: seconds from the fall until every client was ready.
        problems: workers that left.
    """

    from_fall: float
    from_promotion: float
    ready_after: float
    violations: list[Violation]
    problems: list[str] = field(default_factory=list)


async def measure_rescues(server: Server, folder: Path, rng: random.Random) -> list[float]:
    """Kill workers that hold a job each; return how long until another one took each over.

    Args:
        server: for platform and tenants, with the template of a platform.
        folder: for a migration that never ends, and for logs.
        rng: decides at which moments of their leases they die.
    """
    platform = "recovery"
    await server.run(f'create database "{platform}" template "{TEMPLATE}"')
    hanging = folder / "hanging"
    hanging.mkdir(parents=True)
    (hanging / "20260101000000_hangs.sql").write_text("select pg_sleep(3600);\n")
    environment = _environment(server.dsn_of(platform), server.dsn, hanging)
    connection = await asyncpg.connect(server.dsn_of(platform))
    died: dict[str, float] = {}
    try:
        for number in range(VICTIMS):
            await connection.execute(
                "insert into clients (name, auto_provision) values ($1, true)", f"client {number}"
            )
        one_each = environment | {"PGWORKER_CONCURRENCY": "1"}
        async with _workers(VICTIMS, one_each, folder, name="victim") as victims:
            await _until(connection, "select count(*) = $1 from client_provisioning_jobs"
                                     " where job_type = 'schema_sync' and status = 'running'",
                         VICTIMS)  # fmt: skip
            async with _workers(1, environment, folder):
                for victim in victims:
                    await asyncio.sleep(rng.uniform(1, 4))
                    await victim.kill()
                    died[str(victim.pid)] = time.time()
                await _until(connection, "select count(*) = $1 from pgworker.event_log"
                                         " where event = 'rescued'", VICTIMS)  # fmt: skip
        rows = await connection.fetch(
            "select at, detail ->> 'silent_worker' as worker from pgworker.event_log"
            " where event = 'rescued'"
        )
    finally:
        await connection.close()
        await server.run(f'drop database "{platform}" with (force)')
        await drop_tenants(server)
    return [row["at"].timestamp() - died[row["worker"].split(":")[-2]] for row in rows]


async def measure_fail_over(tenants: Server, folder: Path) -> FailOver:
    """Let the platform's primary fall in the middle of work, and promote its standby.

    Args:
        tenants: another server, which stays.
        folder: for logs.
    """
    async with (
        a_server(**SERVER) as primary,
        a_standby(primary) as standby,
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
        # So that there is work left when it falls.
        environment = _environment(dsn, tenants.dsn, MIGRATIONS) | {"PGWORKER_CONCURRENCY": "2"}
        await primary.run(
            "insert into clients (name, auto_provision)"
            f" select 'client ' || n, true from generate_series(1, {CLIENTS}) n",
            database=platform,
        )
        async with _workers(2, environment, folder) as workers:
            before = await asyncpg.connect(primary.dsn_of(platform))
            await _until(before, "select count(*) >= $1 from clients"
                                 " where provisioning_status = 'ready'", CLIENTS // 5)  # fmt: skip
            before.terminate()
            fell_at = time.time()
            await primary.crash()
            await standby.promote()
            promoted_at = time.time()
            after = await asyncpg.connect(standby.dsn_of(platform))
            try:
                ready = "select count(*) = $1 from clients where provisioning_status = 'ready'"
                await _until(after, ready, CLIENTS)
                ready_at = time.time()
                first = await after.fetchval(
                    "select min(at) from pgworker.event_log where at > to_timestamp($1)",
                    promoted_at,
                )
            finally:
                await after.close()
            problems = [
                f"a worker left with {worker.exited.result()} in a fail-over"
                for worker in workers
                if not worker.is_running
            ]
        evidence = await gather(
            {"fail-over": standby.dsn_of(platform)},
            tenants.dsn,
            vault=Vault(parse_encryption_keys((SecretStr(KEY),))),
            ledger=None,
            logs={worker.log.name: worker.said for worker in workers},
        )
        await drop_tenants(tenants)
    return FailOver(
        from_fall=first.timestamp() - fell_at,
        from_promotion=first.timestamp() - promoted_at,
        ready_after=ready_at - fell_at,
        violations=check(evidence, expected()),
        problems=problems,
    )


def _environment(platform: str, tenants: str, migrations: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": platform,
        "PGWORKER_PROVIDER": "postgres",
        "PGWORKER_TENANTS_URL": tenants,
        "PGWORKER_ENCRYPTION_KEYS": KEY,
        "PGWORKER_MIGRATIONS_DIR": str(migrations),
        "PGWORKER_LOG_FORMAT": "json",
    }


@asynccontextmanager
async def _workers(
    count: int, environment: Mapping[str, str], folder: Path, *, name: str = "worker"
) -> AsyncIterator[list[WorkerProcess]]:
    """Run `pgworker run` so often while the block runs."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                a_process(folder, "run", name=f"{name}-{number}", environment=environment)
            )
            for number in range(count)
        ]


async def _until(connection: asyncpg.Connection, condition: str, *arguments: Any) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await connection.fetchval(condition, *arguments):  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.05)
