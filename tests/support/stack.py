"""A complete pgworker in a test: database, daemon, provider, and everything that they output."""

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
from tests.support.polling import eventually

if TYPE_CHECKING:
    import pytest

    from pgworker.queue.jobs import Outstanding
    from pgworker.simulator import Faults, Ledger

KEY = "test:" + base64.b64encode(bytes(range(32))).decode()
CANONICAL = Path(__file__).parents[2] / "supabase" / "migrations"
# For all jobs of a daemon, on a busy machine.
TIMEOUT_SECONDS = 150
# Longer than any test takes: a probe is due only when a test moves its time.
PROBE_EVERY = timedelta(hours=1)
TO_NEXT_PROBE_SECONDS = 2 * 3600


class Log:
    """The captured log; a test can wait for an event instead of sleeping."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self._grown = asyncio.Event()

    def __call__(self, _: Any, method: str, entry: MutableMapping[str, Any]) -> NoReturn:
        self.entries.append({"level": method, **entry})
        self._grown.set()
        raise structlog.DropEvent

    def find(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the entries of this event that have these fields."""
        return [
            entry
            for entry in self.entries
            if entry["event"] == event
            and all(entry.get(name) == value for name, value in fields.items())
        ]

    async def wait_for(self, event: str, *, times: int = 1, **fields: Any) -> None:
        """Return once the event has been logged so often."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while len(self.find(event, **fields)) < times:
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
class Stack:
    """A platform whose daemon works with a simulator, or with a server of tenants.

    Attributes:
        checker: of the traffic between daemon and simulator.
    """

    platform: Platform
    log: Log
    spans: InMemorySpanExporter
    running_simulator: Simulator | None = None
    checker: ContractChecker = field(default_factory=ContractChecker)

    @property
    def simulator(self) -> Simulator:
        assert self.running_simulator is not None, "the provider is postgres"
        return self.running_simulator

    @property
    def faults(self) -> Faults:
        """What the simulator does wrong."""
        return self.simulator.faults

    @property
    def ledger(self) -> Ledger:
        """What the simulator was asked and has created."""
        return self.simulator.ledger

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

    async def run_until_empty(self) -> Outstanding:
        """Run a daemon until no job is left."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await Daemon(self.platform, until_empty=True).run()

    @asynccontextmanager
    async def running(
        self, *, until_empty: bool = True
    ) -> AsyncIterator[asyncio.Task[Outstanding]]:
        """Run a daemon during the block; at the end of the block it is stopped at once."""
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

    async def fetch_row(self, query: str, *arguments: Any) -> dict[str, Any]:
        row = await self.platform.pool.fetchrow(query, *arguments)
        assert row is not None, query
        return dict(row)

    async def fetch_client(self, client_id: UUID) -> dict[str, Any]:
        return await self.fetch_row("select * from clients where id = $1", client_id)

    async def fetch_job(self, client_id: UUID) -> dict[str, Any]:
        return await self.fetch_row(
            "select * from client_provisioning_jobs where client_id = $1 order by id desc limit 1",
            client_id,
        )

    async def count(self, query: str, *arguments: Any) -> int:
        value: int = await self.platform.pool.fetchval(query, *arguments)
        return value

    async def retry(self, client_id: UUID) -> None:
        await self.platform.commands.retry(client_id)

    async def let_time_pass(self, *, seconds: float) -> None:
        """Move all timestamps so many seconds into the past, and wake the worker."""
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
            # The log is append-only: this avoids its trigger without a lock that workers wait for.
            await connection.execute("set local session_replication_role = replica")
            await connection.execute(
                "update pgworker.event_log set at = at - $1 * interval '1 s'", seconds
            )
            await connection.execute("select pg_notify('pgworker', 'time')")

    async def wait_until_snoozed(self, jobs: int, *, after: int = 0) -> int:
        """Wait until so many jobs wait and none runs; return how many snoozes there have been.

        With `after`, a number that this returned before, each of them has been snoozed once more.
        The log can't show that: it is written when PostgreSQL's answer arrives, after the fact.
        """
        query = (
            "select count(*) filter (where status = 'waiting') = $1"
            " and count(*) filter (where status in ('queued', 'running')) = 0 as are_snoozed,"
            " (select count(*) from pgworker.event_log where event = 'snoozed') as snoozes"
            " from client_provisioning_jobs"
        )

        async def count_snoozes() -> int | None:
            row = await self.fetch_row(query, jobs)
            is_reached = row["are_snoozed"] and (not after or row["snoozes"] >= after + jobs)
            return int(row["snoozes"]) if is_reached else None

        snoozes = await eventually(count_snoozes, timeout=TIMEOUT_SECONDS)
        assert snoozes is not None
        return snoozes

    def count_creates(self) -> int:
        """Count the projects that were ever created."""
        return len(self.ledger.created)

    async def fetch_secrets(self) -> set[str]:
        """Return every secret: those of all tenants, and the access token."""
        clients = await self.platform.pool.fetch("select id from clients")
        tenant_secrets = self.platform.secrets()
        values = {
            value
            for client in clients
            for value in (await tenant_secrets.get_fields(client["id"])).values()
        }
        return values | ({self.simulator.token} if self.running_simulator else set())

    async def collect_output(self) -> str:
        """Return everything that a person or a dashboard can read: tables, logs and spans."""
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

    async def assert_no_secret_in_output(self) -> None:
        output = await self.collect_output()
        for secret in await self.fetch_secrets():
            assert len(secret) > 8
            place = output.find(secret)
            assert place < 0, output[max(0, place - 300) : place]
            assert secret.encode().hex() not in output

    def assert_no_violations(self, *, of_answers: bool) -> None:
        """Check the traffic against the API's document; some ordered faults answer against it."""
        found = [str(violation) for violation in self.checker.requests]
        if of_answers:
            found += [str(violation) for violation in self.checker.answers]
        assert not found, found


@asynccontextmanager
async def running_stack(
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    simulated: dict[str, Any] | None,
    settings: dict[str, Any] | None = None,
    invalid_answers: bool = False,
) -> AsyncIterator[Stack]:
    """Open a platform on the database.

    Args:
        database: with pgworker's schema; the simulator keeps its databases on the same server.
        monkeypatch: of the test.
        simulated: settings of a simulator; None is the postgres provider.
        settings: by environment name.
        invalid_answers: whether ordered faults answer what the API's document doesn't allow.
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
                yield Stack(platform, log, spans, checker=checker)
            return
        wanted: dict[str, Any] = {"admin_dsn": database, "rate_limit": 10_000, **simulated}
        options = SimulatorSettings(**wanted)
        async with running_simulator(options, middleware=[checker.middleware]) as simulator:
            chosen = quick | build_environment(simulator) | (settings or {})
            async with open_platform(Settings(_env_file=None, **chosen)) as platform:
                stack = Stack(platform, log, spans, simulator, checker)
                yield stack
                stack.assert_no_violations(of_answers=not invalid_answers)
                assert log.find("phase_crashed") == []
                await stack.assert_no_secret_in_output()


def build_environment(simulator: Simulator) -> dict[str, Any]:
    return {
        "PGWORKER_PROVIDER": "supabase",
        "SUPABASE_ACCESS_TOKEN": simulator.token,
        "SUPABASE_ORG_ID": simulator.organization,
        "SUPABASE_API_URL": simulator.url,
        "PGWORKER_SUPABASE_PROJECT_URL": simulator.project_url_template,
        "PGWORKER_SUPABASE_POOLER_HOSTS": "127.0.0.1",
        "PGWORKER_SUPABASE_POOLER_PORT": simulator.pooler_port,
    }
