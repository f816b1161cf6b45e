"""A whole pgworker in a test: the platform's database, the daemon, a simulator, what they said."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pgworker import telemetry
from pgworker.context import Platform, open_platform
from pgworker.provisioning import breakers
from pgworker.runtime.daemon import Daemon
from pgworker.settings import Settings
from pgworker.simulator import Simulator, SimulatorSettings, running_simulator
from tests.simulator.contract import ContractChecker

if TYPE_CHECKING:
    import pytest

    from pgworker.queue.jobs import Outstanding

KEY = "test:" + base64.b64encode(bytes(range(32))).decode()
CANONICAL = Path(__file__).parents[2] / "supabase" / "migrations"
# For a whole daemon's work, on a machine that has no time for it.
TIMEOUT_SECONDS = 150
# A probe's time comes when a test lets it come, not because the machine is slow.
PROBE_EVERY = timedelta(hours=1)
TO_NEXT_PROBE_SECONDS = 2 * 3600


class Log:
    """What was logged; a test may wait for an event instead of sleeping."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self._grown = asyncio.Event()

    def __call__(self, _: Any, method: str, entry: MutableMapping[str, Any]) -> NoReturn:
        self.entries.append({"level": method, **entry})
        self._grown.set()
        raise structlog.DropEvent

    def of(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        return [
            entry
            for entry in self.entries
            if entry["event"] == event
            and all(entry.get(name) == value for name, value in fields.items())
        ]

    async def seen(self, event: str, *, times: int = 1, **fields: Any) -> None:
        """Return once the event has been logged so often."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while len(self.of(event, **fields)) < times:
                self._grown.clear()
                await self._grown.wait()

    @contextmanager
    def capturing(self) -> Iterator[None]:
        before = structlog.get_config()
        structlog.configure(
            processors=[telemetry.merge_job, self],
            wrapper_class=structlog.BoundLogger,
        )
        try:
            yield
        finally:
            structlog.configure(**before)


@dataclass
class House:
    """A platform whose daemon works against a simulator (or a server of tenants)."""

    platform: Platform
    log: Log
    spans: InMemorySpanExporter
    simulator: Simulator | None = None
    checker: ContractChecker = field(default_factory=ContractChecker)

    @property
    def the(self) -> Simulator:
        assert self.simulator is not None
        return self.simulator

    async def add(self, name: str = "Acme", **settings: Any) -> UUID:
        client_id: UUID = await self.platform.pool.fetchval(
            "insert into clients (name, auto_provision, additional_settings)"
            " values ($1, true, $2) returning id",
            name,
            settings,
        )
        return client_id

    async def add_many(self, count: int) -> None:
        await self.platform.pool.execute(
            "insert into clients (name, auto_provision)"
            " select 'client ' || n, true from generate_series(1, $1) n",
            count,
        )

    async def work(self) -> Outstanding:
        """Run a daemon until nothing is left to do."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await Daemon(self.platform, until_empty=True).run()

    @asynccontextmanager
    async def working(
        self, *, until_empty: bool = True
    ) -> AsyncIterator[asyncio.Task[Outstanding]]:
        """Run a daemon beside the block; it is told to leave at once at the block's end."""
        daemon = Daemon(self.platform, until_empty=until_empty)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            task = asyncio.create_task(daemon.run(), name="daemon")
            try:
                yield task
            finally:
                if not task.done():
                    daemon.drain()
                    daemon.drain()
                await task

    async def row(self, query: str, *arguments: Any) -> dict[str, Any]:
        row = await self.platform.pool.fetchrow(query, *arguments)
        assert row is not None, query
        return dict(row)

    async def client(self, client_id: UUID) -> dict[str, Any]:
        return await self.row("select * from clients where id = $1", client_id)

    async def job(self, client_id: UUID) -> dict[str, Any]:
        return await self.row(
            "select * from client_provisioning_jobs where client_id = $1 order by id desc limit 1",
            client_id,
        )

    async def count(self, query: str, *arguments: Any) -> int:
        value: int = await self.platform.pool.fetchval(query, *arguments)
        return value

    async def retry(self, client_id: UUID) -> None:
        await self.platform.commands.retry(client_id)

    async def let_time_pass(self, *, seconds: float) -> None:
        """Move what is timed into the past, as if the seconds had gone by, and wake the worker."""
        async with self.platform.pool.acquire() as connection, connection.transaction():
            for statement in (
                (
                    "update client_provisioning_jobs set run_at = run_at - $1 * interval '1 s'"
                    " where status = 'waiting'"
                ),
                (
                    "update client_provisioning_jobs"
                    " set phase_began_at = phase_began_at - $1 * interval '1 s'"
                ),
                "update pgworker.breakers set probe_at = probe_at - $1 * interval '1 s'",
                "update pgworker.steps set intended_at = intended_at - $1 * interval '1 s'",
                "update pgworker.tenant_secrets set created_at = created_at - $1 * interval '1 s'",
                (
                    "update pgworker.rate_limits set opened_at = opened_at - $1 * interval '1 s',"
                    " resets_at = resets_at - $1 * interval '1 s'"
                ),
            ):
                await connection.execute(statement, seconds)
            # The log is append-only; without its trigger, and without a lock that workers wait for.
            await connection.execute("set local session_replication_role = replica")
            await connection.execute(
                "update pgworker.event_log set at = at - $1 * interval '1 s'", seconds
            )
            await connection.execute("select pg_notify('pgworker', 'time')")

    async def parked(self, jobs: int, *, after: int = 0) -> int:
        """Wait until so many jobs wait and none runs; return how many waits there have been.

        With `after`, a number that this returned before, each of them has waited once more. The
        log couldn't tell: what PostgreSQL has stored is logged when its answer has arrived.
        """
        query = (
            "select count(*) filter (where status = 'waiting') = $1"
            " and count(*) filter (where status in ('queued', 'running')) = 0 as are_parked,"
            " (select count(*) from pgworker.event_log where event = 'snoozed') as waits"
            " from client_provisioning_jobs"
        )
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while True:
                row = await self.row(query, jobs)
                if row["are_parked"] and (not after or row["waits"] >= after + jobs):
                    return int(row["waits"])

    def creates(self) -> int:
        """Count the projects that were ever created."""
        return len(self.the.ledger.created)

    async def secrets(self) -> set[str]:
        """Return every secret there is: of all tenants, and our own."""
        clients = await self.platform.pool.fetch("select id from clients")
        tenant_secrets = self.platform.secrets()
        values = {
            value
            for client in clients
            for value in (await tenant_secrets.of_client(client["id"])).values()
        }
        return values | ({self.the.token} if self.simulator else set())

    async def said(self) -> str:
        """Return everything that a person or a dashboard may read of this house."""
        parts = []
        for table in (
            "public.clients",
            "public.client_provisioning_jobs",
            "pgworker.event_log",
            "pgworker.intents",
            "pgworker.steps",
            "pgworker.tenant_secrets",
            "pgworker.breakers",
            "pgworker.workers",
        ):
            rows = await self.platform.pool.fetch(f"select t::text as text from {table} as t")
            parts += [row["text"] for row in rows]
        parts += [repr(entry) for entry in self.log.entries]
        parts += [span.to_json() for span in self.spans.get_finished_spans()]
        return "\n".join(parts)

    async def assert_nothing_secret_was_said(self) -> None:
        said = await self.said()
        for secret in await self.secrets():
            assert len(secret) > 8
            place = said.find(secret)
            assert place < 0, said[max(0, place - 300) : place]
            assert secret.encode().hex() not in said

    def assert_no_violations(self, *, of_answers: bool) -> None:
        """Check the traffic; an ordered fault may answer what no document allows."""
        found = [str(violation) for violation in self.checker.requests]
        if of_answers:
            found += [str(violation) for violation in self.checker.answers]
        assert not found, found


@asynccontextmanager
async def a_house(
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    simulated: dict[str, Any] | None,
    settings: dict[str, Any] | None = None,
    strange_answers: bool = False,
) -> AsyncIterator[House]:
    """Open a platform on the database.

    Args:
        database: with pgworker's schema; the simulator keeps its databases on the same server.
        monkeypatch: of the test.
        simulated: settings of a simulator; None is the postgres provider.
        settings: by environment name.
        strange_answers: whether ordered faults answer what no document allows.
    """
    spans = InMemorySpanExporter()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(telemetry, "tracer", tracing.get_tracer("test"))
    # Another test of this process may have set a provider for all of OpenTelemetry, or not.
    monkeypatch.setattr(telemetry, "is_tracing", lambda: True)
    monkeypatch.setattr(breakers, "PROBE_EVERY", PROBE_EVERY)
    log, checker = Log(), ContractChecker()
    quick: dict[str, Any] = {
        "DATABASE_URL": database,
        "PGWORKER_ENCRYPTION_KEYS": KEY,
        "PGWORKER_MIGRATIONS_DIR": str(CANONICAL),
        "PGWORKER_PROJECT_POLL_SECONDS": 0.05,
        "PGWORKER_BACKOFF_SECONDS": 0.02,
        "PGWORKER_BACKOFF_CAP_SECONDS": 0.2,
    }
    with log.capturing():
        if simulated is None:
            chosen = quick | {"PGWORKER_PROVIDER": "postgres"} | (settings or {})
            async with open_platform(Settings(_env_file=None, **chosen)) as platform:
                yield House(platform, log, spans, checker=checker)
            return
        wanted: dict[str, Any] = {"admin_dsn": database, "rate_limit": 10_000, **simulated}
        how = SimulatorSettings(**wanted)
        async with running_simulator(how, middleware=[checker.middleware]) as simulator:
            chosen = quick | environment_of(simulator) | (settings or {})
            async with open_platform(Settings(_env_file=None, **chosen)) as platform:
                house = House(platform, log, spans, simulator, checker)
                yield house
                house.assert_no_violations(of_answers=not strange_answers)
                assert log.of("phase_crashed") == []
                await house.assert_nothing_secret_was_said()


def environment_of(simulator: Simulator) -> dict[str, Any]:
    return {
        "PGWORKER_PROVIDER": "supabase",
        "SUPABASE_ACCESS_TOKEN": simulator.token,
        "SUPABASE_ORG_ID": simulator.organization,
        "SUPABASE_API_URL": simulator.url,
        "PGWORKER_SUPABASE_PROJECT_URL": simulator.project_url_template,
        "PGWORKER_SUPABASE_POOLER_HOSTS": "127.0.0.1",
        "PGWORKER_SUPABASE_POOLER_PORT": simulator.pooler_port,
    }
