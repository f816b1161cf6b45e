"""The demo: a platform of its own on an embedded PostgreSQL, and a handful of clients for real.

Its data directory is `demo` inside the usual one, so that it never meets a real platform. Each run
begins with an empty platform; what the last one made stays until then, to look at.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from pgworker.context import Platform, open_platform
from pgworker.db.embedded import default_data_dir, embedded_server
from pgworker.db.pool import connected
from pgworker.db.queries import load
from pgworker.errors import BadConfiguration, PgworkerError
from pgworker.maintenance.fleet import canonical_set
from pgworker.models import ClientStatus
from pgworker.providers.postgres.provider import PostgresProvider
from pgworker.runtime.daemon import Daemon
from pgworker.settings import load_settings
from pgworker.telemetry import configure_logging

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from typing import Literal
    from uuid import UUID

    from pgworker.settings import Settings
    from pgworker.status.rows import ClientStatusRow

LOOK_EVERY = timedelta(milliseconds=100)
# Far beyond what it takes; a demo that hangs helps nobody.
LIMIT = timedelta(minutes=5)
NAMES = (
    *("Acme Bakery", "Blue Harbour", "Cedar & Sons", "Delta Cycles", "Évora Textiles"),
    *("Fjord Freight", "Granite Gym", "Hazel Books"),
)


class DemoQueries(NamedTuple):
    """The statements of `sql/queries/demo.sql`."""

    lock: str
    tenants: str
    reset: str
    insert_clients: str


DEMO_QUERIES = load(DemoQueries, "queries/demo.sql")


@dataclass(frozen=True, slots=True)
class DemoClient:
    """One client of the demo, at one moment.

    Attributes:
        row: of `client_status`.
        seconds: in each phase begun so far, in order.
    """

    row: ClientStatusRow
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        """Whether its tenant can be used."""
        return self.row.status == ClientStatus.READY


@dataclass(frozen=True, slots=True)
class DemoReport:
    """How the demo went."""

    clients: tuple[DemoClient, ...]
    seconds: float
    data_dir: Path

    @property
    def complete(self) -> bool:
        """Whether every client is ready."""
        return all(client.is_ready for client in self.clients)


def demo_directory() -> Path:
    """Return the demo's own data directory.

    Raises:
        BadConfiguration: a setting can't be used.
    """
    return (load_settings().data_dir or default_data_dir()).absolute() / "demo"


def client_names(count: int) -> list[str]:
    """Return as many names of clients."""
    return [*NAMES[:count], *(f"Client {number}" for number in range(len(NAMES) + 1, count + 1))]


async def run_demo(
    *,
    provider: Literal["postgres", "supabase"],
    names: list[str],
    show: Callable[[tuple[DemoClient, ...]], None],
) -> DemoReport:
    """Provision clients of these names; `show` is called with their state while it works.

    Provider `supabase` is the simulator of the Management API, with real databases behind it.

    Raises:
        BadConfiguration: there are no migrations, or an extra of pgworker is missing.
        PgworkerError: another demo runs here, or this one didn't end in time.
    """
    _refuse_without_migrations(load_settings().migrations_dir)
    data_dir = demo_directory()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(embedded_server(data_dir))
        log = stack.enter_context((data_dir / "demo.log").open("w", encoding="utf-8"))
        configure_logging("console", file=log)
        stack.callback(configure_logging, None)
        await stack.enter_async_context(_reset(server.dsn))
        settings = await stack.enter_async_context(_settings(provider, data_dir, server.dsn))
        platform = await stack.enter_async_context(open_platform(settings))
        began = time.monotonic()
        await platform.pool.execute(DEMO_QUERIES.insert_clients, names)
        await _work(platform, show)
        clients = await _look(platform)
        show(clients)
        return DemoReport(clients, time.monotonic() - began, data_dir)


def _refuse_without_migrations(directory: Path) -> None:
    try:
        canonical_set(directory)
    except BadConfiguration as error:
        raise BadConfiguration(
            f"{error} (the demo applies the example migrations of pgworker's repository: "
            "run it there, or name a directory of your own)"
        ) from error


async def _work(platform: Platform, show: Callable[[tuple[DemoClient, ...]], None]) -> None:
    """Run a worker until nothing is left to do, and tell of it."""
    daemon = Daemon(platform, until_empty=True)
    async with asyncio.timeout(LIMIT.total_seconds()) as limit, asyncio.TaskGroup() as tasks:
        working = tasks.create_task(daemon.run(), name="worker")
        while not working.done():
            show(await _look(platform))
            await asyncio.wait({working}, timeout=LOOK_EVERY.total_seconds())
    if limit.expired():
        raise PgworkerError(f"the demo did not end within {LIMIT.total_seconds():.0f} s")


async def _look(platform: Platform) -> tuple[DemoClient, ...]:
    rows = await platform.status.list_clients()
    spans: dict[UUID, dict[str, float]] = {}
    for span in await platform.status.list_phase_seconds([row.client_id for row in rows]):
        spans.setdefault(span.client_id, {})[span.phase] = span.seconds
    ordered = sorted(rows, key=lambda row: row.client_name)
    return tuple(DemoClient(row, spans.get(row.client_id, {})) for row in ordered)


@asynccontextmanager
async def _reset(dsn: str) -> AsyncIterator[None]:
    """Clear away what the last demo made, and keep other demos out until the block ends."""
    async with connected(dsn) as connection:
        if not await connection.fetchval(DEMO_QUERIES.lock):
            raise PgworkerError("another demo is running here: wait until it has ended")
        names = [row["name"] for row in await connection.fetch(DEMO_QUERIES.tenants)]
        provider = PostgresProvider(dsn)
        for name in names:
            await provider.delete(name)
        await provider.aclose()
        await connection.execute(DEMO_QUERIES.reset)
        yield


@asynccontextmanager
async def _settings(provider: str, data_dir: Path, dsn: str) -> AsyncIterator[Settings]:
    """Yield settings that reach nothing but this machine, whatever the environment says."""
    own: dict[str, object] = {
        "DATABASE_URL": None,
        "PGWORKER_LISTEN_URL": None,
        "PGWORKER_DATA_DIR": data_dir,
        "PGWORKER_TENANTS_URL": None,
        "PGWORKER_PROVIDER": provider,
        "PGWORKER_PROJECT_POLL_SECONDS": 0.2,
        "SUPABASE_ACCESS_TOKEN": None,
    }
    if provider == "postgres":
        yield load_settings(**own)
        return
    # Needs the extra `http`; says so itself.
    from pgworker.simulator import SimulatorSettings, running_simulator

    simulated = SimulatorSettings(admin_dsn=dsn, coming_up_seconds=1.5, services_lag_seconds=0.5)
    async with running_simulator(simulated) as simulator:
        yield load_settings(
            **own
            | {
                "SUPABASE_ACCESS_TOKEN": simulator.token,
                "SUPABASE_ORG_ID": simulator.organization,
                "SUPABASE_API_URL": simulator.url,
                "SUPABASE_DEFAULT_REGION": "us-east-1",
                "SUPABASE_DEFAULT_PLAN": None,
                "PGWORKER_SUPABASE_PROJECT_URL": simulator.project_url_template,
                "PGWORKER_SUPABASE_POOLER_HOSTS": "127.0.0.1",
                "PGWORKER_SUPABASE_POOLER_PORT": simulator.pooler_port,
            }
        )
