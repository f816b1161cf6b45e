"""The demo: a platform of its own on an embedded PostgreSQL that provisions a few clients for real.

Its data directory is `demo` inside the usual one, so that it never touches a real platform. Each
run begins with an empty platform; until then the tenants of the last run stay, to be explored.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from pydantic import SecretStr

from pgworker.context import Platform, locate_data_dir, open_platform
from pgworker.db.embedded import embedded_server
from pgworker.db.pool import connected
from pgworker.db.queries import load
from pgworker.errors import BadConfiguration, PgworkerError
from pgworker.models import ClientStatus
from pgworker.providers.postgres.provider import PostgresProvider
from pgworker.runtime.daemon import Daemon
from pgworker.schema.directory import read_configured_set
from pgworker.telemetry import configure_logging

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from typing import Literal
    from uuid import UUID

    from pgworker.settings import Settings
    from pgworker.status.rows import ClientStatusRow

REFRESH_EVERY = timedelta(milliseconds=100)
# Far more than it takes: a demo that hangs must end with a message.
TIME_LIMIT = timedelta(minutes=5)
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
    """The result of the demo."""

    clients: tuple[DemoClient, ...]
    seconds: float
    data_dir: Path

    @property
    def complete(self) -> bool:
        """Whether every client is ready."""
        return all(client.is_ready for client in self.clients)


def locate_demo(settings: Settings) -> Path:
    """Return the demo's own data directory."""
    return locate_data_dir(settings) / "demo"


def choose_names(count: int) -> list[str]:
    """Return names for so many clients."""
    return [*NAMES[:count], *(f"Client {number}" for number in range(len(NAMES) + 1, count + 1))]


async def run_demo(
    settings: Settings,
    *,
    provider: Literal["postgres", "supabase"],
    names: list[str],
    show: Callable[[tuple[DemoClient, ...]], None],
) -> DemoReport:
    """Provision clients of these names; `show` is called with their state again and again.

    Provider `supabase` is the simulator of the Management API, with real databases behind it.
    Of the settings, those that name a database, a server or an account are replaced.

    Raises:
        BadConfiguration: there are no migrations, or an extra of pgworker is missing.
        PgworkerError: another demo is running here, or this one didn't end in time.
    """
    _refuse_without_migrations(settings.migrations_dir)
    data_dir = locate_demo(settings)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(embedded_server(data_dir))
        log = stack.enter_context((data_dir / "demo.log").open("w", encoding="utf-8"))
        configure_logging("console", file=log)
        stack.callback(configure_logging, None)
        await stack.enter_async_context(_reset(server.dsn))
        settings = _replace(settings, _isolate(provider, data_dir))
        if provider == "supabase":
            simulated = await stack.enter_async_context(_simulate(server.dsn))
            settings = _replace(settings, simulated)
        platform = await stack.enter_async_context(open_platform(settings))
        began = time.monotonic()
        await platform.pool.execute(DEMO_QUERIES.insert_clients, names)
        await _run_worker(platform, show)
        clients = await _read_clients(platform)
        show(clients)
        return DemoReport(clients, time.monotonic() - began, data_dir)


def _refuse_without_migrations(directory: Path) -> None:
    try:
        read_configured_set(directory)
    except BadConfiguration as error:
        raise BadConfiguration(
            f"{error} (the demo applies the example migrations of pgworker's repository: "
            "run it there, or name a directory of your own)"
        ) from error


async def _run_worker(platform: Platform, show: Callable[[tuple[DemoClient, ...]], None]) -> None:
    """Run a worker until no job is left, and show the clients meanwhile."""
    daemon = Daemon(platform, until_empty=True)
    async with asyncio.timeout(TIME_LIMIT.total_seconds()) as limit, asyncio.TaskGroup() as tasks:
        worker = tasks.create_task(daemon.run(), name="worker")
        while not worker.done():
            show(await _read_clients(platform))
            await asyncio.wait({worker}, timeout=REFRESH_EVERY.total_seconds())
    if limit.expired():
        raise PgworkerError(f"the demo did not end within {TIME_LIMIT.total_seconds():.0f} s")


async def _read_clients(platform: Platform) -> tuple[DemoClient, ...]:
    rows = await platform.status.list_clients()
    spans: dict[UUID, dict[str, float]] = {}
    for span in await platform.status.list_phase_seconds([row.client_id for row in rows]):
        spans.setdefault(span.client_id, {})[span.phase] = span.seconds
    ordered = sorted(rows, key=lambda row: row.client_name)
    return tuple(DemoClient(row, spans.get(row.client_id, {})) for row in ordered)


@asynccontextmanager
async def _reset(dsn: str) -> AsyncIterator[None]:
    """Delete what the last demo created, and lock other demos out until the block ends."""
    async with connected(dsn) as connection:
        if not await connection.fetchval(DEMO_QUERIES.lock):
            raise PgworkerError("another demo is running here: wait until it ends")
        names = [row["name"] for row in await connection.fetch(DEMO_QUERIES.tenants)]
        provider = PostgresProvider(dsn)
        for name in names:
            await provider.delete(name)
        await provider.aclose()
        await connection.execute(DEMO_QUERIES.reset)
        yield


def _replace(settings: Settings, changes: dict[str, object]) -> Settings:
    # pydantic would take a field that doesn't exist without an error.
    assert changes.keys() <= type(settings).model_fields.keys()
    return settings.model_copy(update=changes)


def _isolate(provider: str, data_dir: Path) -> dict[str, object]:
    """Return settings, by field, that reach nothing but this machine."""
    return {
        "database_url": None,
        "listen_url": None,
        "data_dir": data_dir,
        "tenants_url": None,
        "provider_name": provider,
        "project_poll": timedelta(seconds=0.2),
        "supabase_access_token": None,
    }


@asynccontextmanager
async def _simulate(dsn: str) -> AsyncIterator[dict[str, object]]:
    """Run a simulator of the Management API; yield the settings, by field, that lead to it."""
    # Imported here: it needs the extra `http`, and says so itself when that is missing.
    from pgworker.simulator import SimulatorSettings, running_simulator

    fast = SimulatorSettings(admin_dsn=dsn, coming_up_seconds=1.5, services_lag_seconds=0.5)
    async with running_simulator(fast) as simulator:
        yield {
            "supabase_access_token": SecretStr(simulator.token),
            "supabase_org_id": simulator.organization,
            "supabase_api_url": simulator.url,
            "supabase_default_region": "us-east-1",
            "supabase_default_plan": None,
            "supabase_project_url": simulator.project_url_template,
            "supabase_pooler_hosts": ("127.0.0.1",),
            "supabase_pooler_port": simulator.pooler_port,
        }
