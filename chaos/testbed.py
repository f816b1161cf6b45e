"""What workers of a campaign live in: two PostgreSQL servers, a simulator, and wires that break."""

from __future__ import annotations

import asyncio
import base64
import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import asyncpg
from pydantic import SecretStr

from chaos.snapshot import DATABASES, ROLES, Evidence, gather
from chaos.time_scaling import LEASE, PACE, measure_pace, settings
from chaos.workers import Workers, worker_processes
from pgworker.db.migrate import migrate
from pgworker.providers.postgres.provider import PostgresProvider
from pgworker.settings import parse_encryption_keys
from pgworker.simulator import Simulator, SimulatorSettings, running_simulator
from pgworker.tenants.secrets import Vault
from tests.support.clusters import Server, a_server
from tests.support.tcp_proxy import TcpProxy, tcp_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

Kind = Literal["postgres", "supabase", "pooler"]

MIGRATIONS = Path(__file__).parent / "migrations"
KEY = "chaos:" + base64.b64encode(bytes(range(100, 132))).decode()
# A few worlds' platforms, a database and a session for each client, and no checkpoint in between.
SERVER = {
    "max_connections": "400",
    "shared_buffers": "64MB",
    "full_page_writes": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "4GB",
}
TEMPLATE = "platform_template"
WITNESS = (Path(__file__).parent / "witness.sql").read_text()
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR")


@dataclass(slots=True)
class Stage:
    """What worlds stand on: two PostgreSQL servers, and where workers come from."""

    platform: Server
    tenants: Server
    workers: Workers


@asynccontextmanager
async def a_stage(folder: Path) -> AsyncIterator[Stage]:
    """Run the servers, with a template of a platform, and the fork server.

    Args:
        folder: workers leave their logs and traces in it.
    """
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(a_server(**SERVER))
        tenants = await stack.enter_async_context(a_server(**SERVER))
        await make_template(platform)
        workers = await stack.enter_async_context(worker_processes(folder))
        yield Stage(platform, tenants, workers)


async def drop_tenants(server: Server) -> None:
    """Drop the databases and roles that the provider `postgres` made there."""
    # Several at once: each waits for a checkpoint, which does for all.
    async with asyncpg.create_pool(server.dsn, min_size=0, max_size=8) as pool:
        for what, found in (("database", DATABASES), ("role", ROLES)):
            names = [row["name"] for row in await pool.fetch(found)]
            force = "with (force)" if what == "database" else ""
            await asyncio.gather(*(pool.execute(f'drop {what} "{x}" {force}') for x in names))


async def make_template(server: Server) -> None:
    """Make the database that platforms are copied from: migrated, and with its witnesses."""
    await server.run(f'create database "{TEMPLATE}" template template0')
    connection = await asyncpg.connect(server.dsn_of(TEMPLATE))
    try:
        await migrate(connection)
        await connection.execute(WITNESS)
    finally:
        await connection.close()


@dataclass(slots=True)
class World:
    """What some workers see of the stage.

    Attributes:
        kind: the provider; `pooler` is supabase with its SQL over PostgreSQL.
        wires: the proxies by where they lead: `platform`, `tenants`, `api`, `pooler`.
        pace: how many times as long everything lasts here (`timelapse`).
    """

    kind: Kind
    stage: Stage
    wires: dict[str, TcpProxy]
    simulator: Simulator | None
    pace: float
    platforms: list[str] = field(default_factory=list)

    @property
    def lease(self) -> float:
        """How long a lease lasts, in seconds."""
        return LEASE * self.pace

    async def add_platform(self, name: str) -> str:
        """Make a platform's database; return its name."""
        await self.stage.platform.run(f'create database "{name}" template "{TEMPLATE}"')
        self.platforms.append(name)
        return name

    async def evidence(self) -> Evidence:
        """Read what this world's workers left behind, with its simulator's ledger."""
        return await gather(
            {name: self.stage.platform.dsn_of(name) for name in self.platforms},
            self.stage.tenants.dsn,
            vault=Vault(parse_encryption_keys((SecretStr(KEY),))),
            ledger=None if self.simulator is None else self.simulator.ledger.as_json(),
            logs={
                worker.folder.name: worker.said
                for name in self.platforms
                for worker in self.stage.workers.of(name)
            },
            foreign_secrets=() if self.simulator is None else (self.simulator.token,),
        )

    async def clear(self) -> None:
        """Drop what this world made on the stage, so that the next one begins on a clean one."""
        await self.stage.platform.run(
            *(f'drop database "{name}" with (force)' for name in self.platforms)
        )
        await drop_tenants(self.stage.tenants)

    def environment(self, platform: str, **overrides: Any) -> Mapping[str, str]:
        """Return the environment of a worker of that platform; everything goes over the wires."""
        values: dict[str, Any] = {
            "DATABASE_URL": self._through("platform", self.stage.platform.dsn_of(platform)),
            "PGWORKER_ENCRYPTION_KEYS": KEY,
            "PGWORKER_MIGRATIONS_DIR": MIGRATIONS,
            "PGWORKER_LOG_FORMAT": "json",
            PACE: self.pace,
            **settings(self.pace),
        }
        if self.simulator is None:
            values |= {
                "PGWORKER_PROVIDER": "postgres",
                "PGWORKER_TENANTS_URL": self._through("tenants", self.stage.tenants.dsn),
            }
        else:
            api = f"http://127.0.0.1:{self.wires['api'].port}"
            values |= {
                "PGWORKER_PROVIDER": "supabase",
                "SUPABASE_ACCESS_TOKEN": self.simulator.token,
                "SUPABASE_ORG_ID": self.simulator.organization,
                "SUPABASE_API_URL": api,
                "PGWORKER_SUPABASE_PROJECT_URL": f"{api}/projects/{{ref}}",
                "PGWORKER_SUPABASE_POOLER_HOSTS": "127.0.0.1",
                "PGWORKER_SUPABASE_POOLER_PORT": self.wires["pooler"].port,
                "PGWORKER_SUPABASE_SQL": "postgres" if self.kind == "pooler" else "api",
            }
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return passed_on | {name: str(value) for name, value in (values | overrides).items()}

    def _through(self, wire: str, dsn: str) -> str:
        parts = urlsplit(dsn)
        userinfo = parts.netloc.rpartition("@")[0]
        netloc = f"{userinfo}@127.0.0.1:{self.wires[wire].port}"
        return parts._replace(netloc=netloc).geturl()


@asynccontextmanager
async def a_world(
    kind: Kind,
    stage: Stage,
    *,
    simulated: Mapping[str, Any] | None = None,
    pace: float | None = None,
) -> AsyncIterator[World]:
    """Build a world on the stage.

    Args:
        kind: which provider.
        stage: that it stands on.
        simulated: settings of the simulator.
        pace: see `timelapse`; measured when it is None.
    """
    async with AsyncExitStack() as stack:
        simulator: Simulator | None = None
        wires = {
            "platform": await stack.enter_async_context(
                tcp_proxy("127.0.0.1", stage.platform.port)
            ),
            "tenants": await stack.enter_async_context(tcp_proxy("127.0.0.1", stage.tenants.port)),
        }
        if kind != "postgres":
            values: dict[str, Any] = {
                "admin_dsn": stage.tenants.dsn,
                "rate_limit": 100_000,
                # The harder case: nothing but pgworker itself stands against a second project.
                "duplicate_names": "accepted",
                **(simulated or {}),
            }
            simulator = await stack.enter_async_context(
                running_simulator(SimulatorSettings(**values))
            )
            port = urlsplit(simulator.url).port
            assert port is not None
            wires["api"] = await stack.enter_async_context(tcp_proxy("127.0.0.1", port))
            wires["pooler"] = await stack.enter_async_context(
                tcp_proxy("127.0.0.1", simulator.pooler_port)
            )
        else:
            await _make_tenants_template(stage.tenants.dsn)
        world = World(kind, stage, wires, simulator, pace=pace or measure_pace())
        stack.push_async_callback(world.clear)
        yield world


async def _make_tenants_template(dsn: str) -> None:
    """Make what databases are copied from before any worker does, so that all go the same way."""
    provider = PostgresProvider(dsn, migrations_dir=MIGRATIONS)
    assert provider.templates is not None
    await provider.templates.prepare()
    await provider.aclose()
