"""Many clients, several real worker processes, and a proxy that checks requests and answers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pgworker.context import open_platform
from pgworker.http_server import HttpServer, open_listener
from pgworker.settings import Settings
from pgworker.simulator import SimulatorSettings, running_simulator
from tests.simulator.contract import ContractChecker
from tests.support.stack import CANONICAL, KEY, build_environment
from tests.support.workers import within

PGWORKER = Path(sys.executable).with_name("pgworker")
VERSIONS = sorted(file.name.partition("_")[0] for file in CANONICAL.glob("*.sql"))
OURS = ("PGWORKER_", "SUPABASE_", "DATABASE_URL", "OTEL_")
HISTORY = "select array_agg(version order by version) from supabase_migrations.schema_migrations"


# -- processes --------------------------------------------------------------------------------


async def pgworker(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    """Run the command; return its output, or fail with it."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith(OURS)}
    process = await asyncio.create_subprocess_exec(
        str(PGWORKER),
        *arguments,
        env=clean | environment,
        cwd=folder,  # away from a developer's .env
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 1000)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"pgworker {arguments}: {err.decode()[-2000:]}"
    assert "Traceback" not in err.decode()
    return out.decode()


async def drain_with(workers: int, folder: Path, environment: dict[str, str]) -> None:
    await asyncio.gather(*(pgworker(folder, environment, "run", "--drain") for _ in range(workers)))


async def insert_clients(dsn: str, count: int) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "insert into clients (name, auto_provision)"
        f" select 'client ' || n, true from generate_series(1, {count}) n"
    )
    await connection.close()


async def fetch(dsn: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


async def assert_all_are_ready(dsn: str, count: int, *, workers: int = 2) -> None:
    rows = await fetch(
        dsn, "select provisioning_status, schema_version, count(*) from clients group by 1, 2"
    )
    assert [tuple(row) for row in rows] == [("ready", VERSIONS[-1], count)]
    # All took part; none lost a job or burnt an attempt on the way.
    actors = await fetch(
        dsn, "select count(distinct actor) from pgworker.event_log where event = 'claimed'"
    )
    assert actors[0][0] == workers
    events = await fetch(
        dsn,
        "select event, error from pgworker.event_log"
        " where event in ('rescued', 'backed_off', 'failed')",
    )
    assert events == []


# -- the proxy --------------------------------------------------------------------------------


@asynccontextmanager
async def a_proxy(target: str, checker: ContractChecker) -> AsyncIterator[str]:
    """Forward everything to the target, and check it against the OpenAPI extract."""
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=target, timeout=60, limits=limits) as client:

        async def forward(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive)
            answer = await client.request(
                request.method,
                str(request.url.replace(scheme="", netloc="")),
                content=await request.body(),
                headers=[
                    (name, text)
                    for name, text in request.headers.items()
                    if name not in {"host", "connection", "accept-encoding", "content-length"}
                ],
            )
            headers = {
                name: text
                for name, text in answer.headers.items()
                if name not in {"connection", "transfer-encoding", "content-length", "server"}
            }
            await Response(answer.content, answer.status_code, headers)(scope, receive, send)

        server = HttpServer(checker.middleware(forward), timeout_keep_alive=60)
        with open_listener("127.0.0.1", 0) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            await within(server.accepting.wait())
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.closing.set()
                server.abort_all()
                await serving


# -- the tests --------------------------------------------------------------------------------


@pytest.mark.timeout(1200)
async def test_two_hundred_clients_become_ready_with_a_project_each_and_no_violation(
    empty_database: str, tmp_path: Path
) -> None:
    checker = ContractChecker()
    how = SimulatorSettings(admin_dsn=empty_database, rate_limit=100_000, coming_up_seconds=0.5)
    async with running_simulator(how) as simulator, a_proxy(simulator.url, checker) as url:
        environment = {
            name: str(value)
            for name, value in {
                **build_environment(simulator),
                "SUPABASE_API_URL": url,
                "PGWORKER_SUPABASE_PROJECT_URL": url + "/projects/{ref}",
                "DATABASE_URL": empty_database,
                "PGWORKER_ENCRYPTION_KEYS": KEY,
                "PGWORKER_MIGRATIONS_DIR": CANONICAL,
                "PGWORKER_PROJECT_POLL_SECONDS": 1,
            }.items()
        }
        await pgworker(tmp_path, environment, "db", "migrate")
        await insert_clients(empty_database, 200)

        await drain_with(2, tmp_path, environment)

        await assert_all_are_ready(empty_database, 200)
        assert len(simulator.ledger.created) == 200
        assert set(simulator.ledger.creates_by_name.values()) == {1}
        shown = await fetch(empty_database, "select project_ref from clients")
        assert {row[0] for row in shown} == {each.ref for each in simulator.ledger.created}
        histories = [
            await fetch(dsn_of(empty_database, f"simulator_{row[0]}"), HISTORY) for row in shown
        ]
        assert all(rows[0][0] == VERSIONS for rows in histories)
        assert [str(each) for each in (*checker.requests, *checker.answers)] == []
        assert sum(map(len, checker.seen.values())) > 5, checker.seen


@pytest.mark.timeout(600)
async def test_workers_that_share_a_token_stay_under_its_limit_together(
    empty_database: str, tmp_path: Path
) -> None:
    how = SimulatorSettings(
        admin_dsn=empty_database, rate_limit=12, rate_window_seconds=2.0, coming_up_seconds=0.2
    )
    async with running_simulator(how) as simulator:
        environment = {
            name: str(value)
            for name, value in {
                **build_environment(simulator),
                "DATABASE_URL": empty_database,
                "PGWORKER_ENCRYPTION_KEYS": KEY,
                "PGWORKER_MIGRATIONS_DIR": CANONICAL,
                "PGWORKER_PROJECT_POLL_SECONDS": 1,
            }.items()
        }
        await pgworker(tmp_path, environment, "db", "migrate")
        await insert_clients(empty_database, 40)

        await drain_with(4, tmp_path, environment)

        await assert_all_are_ready(empty_database, 40, workers=4)
        counted = [each for each in simulator.ledger.entries if each.path.startswith("/v1/")]
        refused = [each.operation for each in counted if each.status == 429]
        waits = await fetch(
            empty_database,
            "select count(*) from pgworker.event_log"
            " where event = 'snoozed' and error_kind = 'throttled'",
        )
        assert waits[0][0] > 10, "the limit was not felt"
        assert len(counted) > 500
        assert len(refused) <= len(counted) / 100, refused


def dsn_of(dsn: str, database: str) -> str:
    from tests.support.server import dsn_of as other_database

    return other_database(dsn, database)


@pytest.mark.timeout(1200)
async def test_fifty_databases_each_with_the_canonical_schema_and_a_login_that_works(
    empty_database: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "DATABASE_URL": empty_database,
        "PGWORKER_PROVIDER": "postgres",
        "PGWORKER_ENCRYPTION_KEYS": KEY,
        "PGWORKER_MIGRATIONS_DIR": str(CANONICAL),
    }
    await pgworker(tmp_path, settings, "db", "migrate")
    await insert_clients(empty_database, 50)
    async with open_platform(Settings(_env_file=None, **settings)) as platform:
        try:
            await drain_with(2, tmp_path, settings)

            await assert_all_are_ready(empty_database, 50)
            clients = await fetch(
                empty_database, "select id, project_ref from clients order by name"
            )
            assert len({client["project_ref"] for client in clients}) == 50
            for client in clients:
                stored = await platform.secrets().get_fields(client["id"])
                assert (await fetch(stored["dsn"], HISTORY))[0][0] == VERSIONS
            # A process each, which costs more than what it does: a few stand for all.
            shown = await asyncio.gather(
                *(
                    pgworker(
                        tmp_path, settings, "secrets", "show", str(client["id"]), "--yes", "--json"
                    )
                    for client in clients[:4]
                )
            )
            for client, text in zip(clients, shown, strict=False):
                fields = json.loads(text)
                assert fields["project_ref"] == client["project_ref"]
                (row,) = await fetch(
                    fields["dsn"], "select current_user::text, current_database()::text"
                )
                assert tuple(row) == (client["project_ref"], client["project_ref"])
                shown_url = await asyncpg.connect(
                    fields["project_url"], password=fields["db_password"]
                )
                await shown_url.close()
        finally:
            provider = platform.providers.default
            for row in await fetch(empty_database, "select id from clients"):
                await provider.delete(provider.tenant_name(row["id"]))
