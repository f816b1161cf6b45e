"""Where a campaign's workers run: two PostgreSQL servers, a simulator, and proxies before them."""

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

from chaos.snapshot import DATABASES, ROLES, Snapshot, take_snapshot
from chaos.time_scaling import LEASE, SLOWDOWN, measure_slowdown, scale_settings
from chaos.workers import WorkerLauncher, launch_workers
from pgworker.db.migrate import migrate
from pgworker.providers.postgres.provider import PostgresProvider
from pgworker.settings import parse_encryption_keys
from pgworker.simulator import Simulator, SimulatorSettings, running_simulator
from pgworker.tenants.secrets import Vault
from tests.support.clusters import Server, running_server
from tests.support.tcp_proxy import TcpProxy, running_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

# `pooler` is `supabase` with its SQL over PostgreSQL.
ProviderKind = Literal["postgres", "supabase", "pooler"]

MIGRATIONS = Path(__file__).parent / "migrations"
ENCRYPTION_KEY = "chaos:" + base64.b64encode(bytes(range(100, 132))).decode()
# For the platforms of several sandboxes, a database and a session for each client, and without a
# checkpoint in between.
SERVER_SETTINGS = {
    "max_connections": "400",
    "shared_buffers": "64MB",
    "full_page_writes": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "4GB",
}
TEMPLATE = "platform_template"
WITNESS_SQL = (Path(__file__).parent / "witness.sql").read_text()
INHERITED_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR")


@dataclass(slots=True)
class Testbed:
    """What sandboxes share: two PostgreSQL servers, and the launcher of workers."""

    platform: Server
    tenants: Server
    launcher: WorkerLauncher


@asynccontextmanager
async def run_testbed(folder: Path) -> AsyncIterator[Testbed]:
    """Run the servers, with a template of a platform, and the fork server.

    Args:
        folder: for the logs and traces of workers.
    """
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(running_server(**SERVER_SETTINGS))
        tenants = await stack.enter_async_context(running_server(**SERVER_SETTINGS))
        await make_template(platform)
        launcher = await stack.enter_async_context(launch_workers(folder))
        yield Testbed(platform, tenants, launcher)


async def drop_tenants(server: Server) -> None:
    """Drop the databases and roles that the provider `postgres` made there."""
    # Several at once: each waits for a checkpoint, and one checkpoint serves them all.
    async with asyncpg.create_pool(server.dsn, min_size=0, max_size=8) as pool:
        for kind, query in (("database", DATABASES), ("role", ROLES)):
            names = [row["name"] for row in await pool.fetch(query)]
            force = "with (force)" if kind == "database" else ""
            await asyncio.gather(*(pool.execute(f'drop {kind} "{name}" {force}') for name in names))


async def make_template(server: Server) -> None:
    """Make the database that platforms are copied from: migrated, and with the witnesses."""
    await server.run(f'create database "{TEMPLATE}" template template0')
    connection = await asyncpg.connect(server.dsn_of(TEMPLATE))
    try:
        await migrate(connection)
        await connection.execute(WITNESS_SQL)
    finally:
        await connection.close()


@dataclass(slots=True)
class Sandbox:
    """Platforms on a testbed, and everything that their workers reach, each behind a proxy.

    Attributes:
        proxies: by their targets: `platform`, `tenants`, `api`, `pooler`.
        slowdown: factor of all durations (`time_scaling`).
        platforms: names of the platforms' databases.
    """

    kind: ProviderKind
    testbed: Testbed
    proxies: dict[str, TcpProxy]
    simulator: Simulator | None
    slowdown: float
    platforms: list[str] = field(default_factory=list)

    @property
    def lease(self) -> float:
        """How long a lease lasts, in seconds."""
        return LEASE * self.slowdown

    async def add_platform(self, name: str) -> str:
        """Create a platform's database; return its name."""
        await self.testbed.platform.run(f'create database "{name}" template "{TEMPLATE}"')
        self.platforms.append(name)
        return name

    async def take_snapshot(self) -> Snapshot:
        """Read what the workers of this sandbox left behind."""
        return await take_snapshot(
            {name: self.testbed.platform.dsn_of(name) for name in self.platforms},
            self.testbed.tenants.dsn,
            vault=Vault(parse_encryption_keys((SecretStr(ENCRYPTION_KEY),))),
            ledger=None if self.simulator is None else self.simulator.ledger.as_json(),
            logs={
                worker.folder.name: worker.output
                for name in self.platforms
                for worker in self.testbed.launcher.get_workers(name)
            },
            foreign_secrets=() if self.simulator is None else (self.simulator.token,),
        )

    async def clear(self) -> None:
        """Drop what this sandbox made on the servers, which the next one shares."""
        await self.testbed.platform.run(
            *(f'drop database "{name}" with (force)' for name in self.platforms)
        )
        await drop_tenants(self.testbed.tenants)

    def build_environment(self, platform: str, **overrides: Any) -> Mapping[str, str]:
        """Return the environment of a worker of that platform; it reaches all through proxies."""
        values: dict[str, Any] = {
            "DATABASE_URL": self._route("platform", self.testbed.platform.dsn_of(platform)),
            "PGWORKER_ENCRYPTION_KEYS": ENCRYPTION_KEY,
            "PGWORKER_MIGRATIONS_DIR": MIGRATIONS,
            "PGWORKER_LOG_FORMAT": "json",
            SLOWDOWN: self.slowdown,
            **scale_settings(self.slowdown),
        }
        if self.simulator is None:
            values |= {
                "PGWORKER_PROVIDER": "postgres",
                "PGWORKER_TENANTS_URL": self._route("tenants", self.testbed.tenants.dsn),
            }
        else:
            api = f"http://127.0.0.1:{self.proxies['api'].port}"
            values |= {
                "PGWORKER_PROVIDER": "supabase",
                "SUPABASE_ACCESS_TOKEN": self.simulator.token,
                "SUPABASE_ORG_ID": self.simulator.organization,
                "SUPABASE_API_URL": api,
                "PGWORKER_SUPABASE_PROJECT_URL": f"{api}/projects/{{ref}}",
                "PGWORKER_SUPABASE_POOLER_HOSTS": "127.0.0.1",
                "PGWORKER_SUPABASE_POOLER_PORT": self.proxies["pooler"].port,
                "PGWORKER_SUPABASE_SQL": "postgres" if self.kind == "pooler" else "api",
            }
        inherited = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
        return inherited | {name: str(value) for name, value in (values | overrides).items()}

    def _route(self, target: str, dsn: str) -> str:
        """Return the DSN with the address of the proxy to this target."""
        parts = urlsplit(dsn)
        userinfo = parts.netloc.rpartition("@")[0]
        netloc = f"{userinfo}@127.0.0.1:{self.proxies[target].port}"
        return parts._replace(netloc=netloc).geturl()


@asynccontextmanager
async def open_sandbox(
    kind: ProviderKind,
    testbed: Testbed,
    *,
    simulated: Mapping[str, Any] | None = None,
    slowdown: float | None = None,
) -> AsyncIterator[Sandbox]:
    """Open a sandbox on the testbed; it is cleared at the end.

    Args:
        kind: which provider.
        testbed: the servers to use.
        simulated: settings of the simulator.
        slowdown: measured when it is None.
    """
    async with AsyncExitStack() as stack:
        simulator: Simulator | None = None
        proxies = {
            "platform": await stack.enter_async_context(
                running_proxy("127.0.0.1", testbed.platform.port)
            ),
            "tenants": await stack.enter_async_context(
                running_proxy("127.0.0.1", testbed.tenants.port)
            ),
        }
        if kind != "postgres":
            values: dict[str, Any] = {
                "admin_dsn": testbed.tenants.dsn,
                "rate_limit": 100_000,
                # The harder case: only pgworker itself prevents a second project.
                "duplicate_names": "accepted",
                **(simulated or {}),
            }
            simulator = await stack.enter_async_context(
                running_simulator(SimulatorSettings(**values))
            )
            port = urlsplit(simulator.url).port
            assert port is not None
            proxies["api"] = await stack.enter_async_context(running_proxy("127.0.0.1", port))
            proxies["pooler"] = await stack.enter_async_context(
                running_proxy("127.0.0.1", simulator.pooler_port)
            )
        else:
            await _make_tenants_template(testbed.tenants.dsn)
        slowdown = slowdown or measure_slowdown()
        sandbox = Sandbox(kind, testbed, proxies, simulator, slowdown)
        stack.push_async_callback(sandbox.clear)
        yield sandbox


async def _make_tenants_template(dsn: str) -> None:
    """Make the template of tenants' databases, so that no worker passes the boundaries of that."""
    provider = PostgresProvider(dsn, migrations_dir=MIGRATIONS)
    assert provider.templates is not None
    await provider.templates.prepare()
    await provider.aclose()
