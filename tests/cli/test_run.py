"""`pgworker run` as a supervisor sees it: exit codes and signals."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from pgworker.settings import parse_api_tokens, token_digest
from tests.cli.conftest import Pgworker, Sql, Start
from tests.support.polling import wait_until_in
from tests.support.sse import open_events
from tests.support.workers import TIMEOUT


@pytest.fixture
async def tenants(sql: Sql, database: str) -> AsyncIterator[None]:
    """Drop the databases of the tenants afterwards: they outlive the platform's."""
    yield
    for row in await sql(
        database, "select 'pgw_' || replace(id::text, '-', '') as name from clients"
    ):
        await sql(database, f'drop database if exists "{row["name"]}" with (force)')
        await sql(database, f'drop role if exists "{row["name"]}"')


@pytest.fixture
def hanging(tmp_path: Path) -> str:
    """A directory with a migration that never ends by itself."""
    directory = tmp_path / "migrations"
    directory.mkdir()
    (directory / "20260101000000_hangs.sql").write_text("select pg_sleep(600);\n")
    return str(directory)


def logged_up_to(event: str, worker: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Return what the worker logs from now on, up to and including this event."""
    assert worker.stderr is not None
    lines: list[dict[str, Any]] = []
    while not lines or lines[-1]["event"] != event:
        lines.append(json.loads(worker.stderr.readline()))
    return lines


def at(logged: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(logged["timestamp"])


async def test_drain_exits_0_when_every_client_is_ready(
    pgworker: Pgworker, sql: Sql, database: str, tenants: None
) -> None:
    await sql(
        database,
        "insert into clients (name, auto_provision) select 'Client ' || n, true "
        "from generate_series(1, 3) as n",
    )
    result = pgworker("run", "--drain", DATABASE_URL=database)
    assert result.returncode == 0, result.stderr
    rows = await sql(database, "select distinct provisioning_status as status from clients")
    assert [row["status"] for row in rows] == ["ready"]


async def test_drain_exits_1_when_a_job_failed_and_a_retry_resumes_at_its_phase(
    pgworker: Pgworker, sql: Sql, database: str, tenants: None, tmp_path: Path
) -> None:
    file = tmp_path / "migrations" / "20260101000000_broken.sql"
    file.parent.mkdir()
    file.write_text("create table t (id int);\nalter table t enable row level security;\nnonsense;")
    await sql(database, "insert into clients (name, auto_provision) values ('Acme', true)")
    directory = str(file.parent)
    failed = pgworker("run", "--drain", DATABASE_URL=database, PGWORKER_MIGRATIONS_DIR=directory)
    assert failed.returncode == 1
    output = pgworker("why", "Acme", DATABASE_URL=database).stdout
    assert "20260101000000_broken.sql:3" in output
    assert "pgworker retry" in output

    file.write_text(file.read_text().replace("nonsense;", ""))
    assert pgworker("retry", "Acme", DATABASE_URL=database).returncode == 0
    done = pgworker("run", "--drain", DATABASE_URL=database, PGWORKER_MIGRATIONS_DIR=directory)
    assert done.returncode == 0, done.stderr
    creates = await sql(database, "select 1 from pgworker.steps where step = 'create_project'")
    assert len(creates) == 1


async def test_sigterm_ends_an_idle_worker_with_exit_code_0(
    start: Start, sql: Sql, database: str
) -> None:
    worker = start("run", DATABASE_URL=database)
    await wait_until_in(database, "select count(*) = 1 from pgworker.worker_status where alive")
    worker.send_signal(signal.SIGTERM)
    _, logged = await asyncio.to_thread(worker.communicate, timeout=TIMEOUT.total_seconds())
    assert worker.returncode == 0, logged
    events = [json.loads(line)["event"] for line in logged.splitlines()]
    assert events[-1] == "worker_stopped"
    (row,) = await sql(database, "select state from pgworker.workers")
    assert row["state"] == "stopped"


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_stops_at_once_and_releases_the_job_without_an_attempt(
    start: Start, sql: Sql, database: str, tenants: None, hanging: str, first: signal.Signals
) -> None:
    await sql(database, "insert into clients (name, auto_provision) values ('Acme', true)")
    worker = start("run", DATABASE_URL=database, PGWORKER_MIGRATIONS_DIR=hanging)
    await wait_until_in(
        database,
        "select exists (select from pg_stat_activity "
        "where query like '%pg_sleep(600)%' and pid <> pg_backend_pid() and datname = "
        "(select 'pgw_' || replace(id::text, '-', '') from clients))",
    )
    worker.send_signal(first)
    # Two of one kind that a busy process finds together are one signal.
    (*_, draining) = await asyncio.to_thread(logged_up_to, "drain_started", worker)
    worker.send_signal(signal.SIGTERM)
    (*_, released) = await asyncio.to_thread(logged_up_to, "jobs_released", worker)
    await asyncio.to_thread(logged_up_to, "worker_stopped", worker)
    assert await asyncio.to_thread(worker.wait, TIMEOUT.total_seconds()) == 0
    assert worker.stderr is not None
    assert worker.stderr.read() == ""
    took = at(released) - at(draining)
    assert took.total_seconds() < draining["grace_seconds"], "it waited for the job"
    (job,) = await sql(
        database, "select status, job_type, attempts, crashes from client_provisioning_jobs"
    )
    assert dict(job) == {
        "status": "queued", "job_type": "schema_sync", "attempts": 0, "crashes": 0
    }  # fmt: skip


async def test_drain_that_a_signal_ended_early_exits_1(
    start: Start, sql: Sql, database: str, tenants: None, hanging: str
) -> None:
    await sql(database, "insert into clients (name, auto_provision) values ('Acme', true)")
    worker = start("run", "--drain", DATABASE_URL=database, PGWORKER_MIGRATIONS_DIR=hanging)
    await wait_until_in(
        database,
        "select count(*) = 1 from client_provisioning_jobs where job_type = 'schema_sync'",
    )
    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGINT)
    await asyncio.to_thread(worker.communicate, timeout=TIMEOUT.total_seconds())
    assert worker.returncode == 1


async def test_migrate_prepares_an_empty_database(pgworker: Pgworker, empty_database: str) -> None:
    result = pgworker("run", "--migrate", "--drain", DATABASE_URL=empty_database)
    assert result.returncode == 0, result.stderr
    assert pgworker("db", "status", DATABASE_URL=empty_database).returncode == 0


def test_a_worker_without_any_migrations_does_not_start(pgworker: Pgworker, database: str) -> None:
    result = pgworker("run", "--drain", DATABASE_URL=database, PGWORKER_MIGRATIONS_DIR=None)
    assert result.returncode == 78
    (line,) = result.stderr.splitlines()
    assert "supabase/migrations" in line
    assert "PGWORKER_MIGRATIONS_DIR" in line


async def test_sigterm_ends_any_command_and_stops_the_embedded_server(
    start: Start, tmp_path: Path
) -> None:
    # No worker runs: it waits.
    adding = start("clients", "add", "New", "--wait")
    assert adding.stdout is not None
    await asyncio.to_thread(adding.stdout.readline)
    adding.send_signal(signal.SIGTERM)
    _, output = await asyncio.to_thread(adding.communicate, timeout=TIMEOUT.total_seconds())
    assert adding.returncode == 143
    assert "Traceback" not in output
    assert not (tmp_path / "data" / "postgres" / "postmaster.pid").exists()


async def test_ctrl_c_exits_130_without_a_traceback(start: Start, database: str) -> None:
    adding = start("clients", "add", "New", "--wait", DATABASE_URL=database)
    assert adding.stdout is not None
    await asyncio.to_thread(adding.stdout.readline)
    adding.send_signal(signal.SIGINT)
    _, output = await asyncio.to_thread(adding.communicate, timeout=TIMEOUT.total_seconds())
    assert adding.returncode == 130
    assert "Traceback" not in output


def test_a_reader_that_has_left_causes_no_error_message(start: Start, database: str) -> None:
    listing = start("jobs", "--json", DATABASE_URL=database)
    assert listing.stdout is not None
    listing.stdout.close()
    listing.stdout = None
    _, output = listing.communicate(timeout=TIMEOUT.total_seconds())
    assert output == ""


def test_without_a_database_url_the_embedded_server_is_used_and_named(
    pgworker: Pgworker, tmp_path: Path
) -> None:
    result = pgworker("run", "--drain", PGWORKER_ENCRYPTION_KEYS=None)
    assert result.returncode == 0, result.stderr
    assert f'"data_dir": "{tmp_path / "data"}"' in result.stderr
    assert (tmp_path / "data" / "encryption.key").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "data" / "postgres" / "postmaster.pid").exists()


# -- with HTTP --------------------------------------------------------------------------------


async def url_of(worker: subprocess.Popen[str]) -> str:
    """Read the log until it names the URL of the HTTP server."""
    assert worker.stderr is not None
    async with asyncio.timeout(60):
        while line := await asyncio.to_thread(worker.stderr.readline):
            event = json.loads(line)
            if event["event"] == "http_started":
                return str(event["url"])
    raise AssertionError(worker.returncode)


async def test_one_process_works_and_serves_http_until_its_worker_has_ended(
    start: Start, sql: Sql, database: str, tenants: None, hanging: str
) -> None:
    token = "a-token-with-scope-admin"
    worker = start(
        *("run", "--http", "127.0.0.1:0"),
        DATABASE_URL=database,
        PGWORKER_API_TOKENS=f"admin:{token}",
        PGWORKER_MIGRATIONS_DIR=hanging,
    )
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(
        base_url=await url_of(worker), headers=headers, timeout=60
    ) as client:
        ordered = (await client.post("/clients", json={"name": "Acme"})).json()
        await wait_until_in(
            database, "select exists (select from clients where schema_version is null"
            " and provisioning_status = 'schema_syncing')",
        )  # fmt: skip
        async with open_events(client, ordered["events_url"]) as events:
            await events.next("progress")

            worker.send_signal(signal.SIGTERM)
            # The running phase has its grace period, and /readyz says that the worker drains.
            async with asyncio.timeout(TIMEOUT.total_seconds()):
                while (await client.get("/readyz")).status_code != 503:
                    pass
            assert (await client.get("/clients")).status_code == 200

            worker.send_signal(signal.SIGTERM)
            await events.read_rest()
    _, logged = await asyncio.to_thread(worker.communicate, timeout=TIMEOUT.total_seconds())
    assert worker.returncode == 0, logged
    assert "Traceback" not in logged


def test_a_new_token_is_printed_with_the_entry_that_accepts_it(pgworker: Pgworker) -> None:
    result = pgworker("keys", "token", "billing", "--scope", "operate")
    assert result.returncode == 0, result.stderr
    token, entry = result.stdout.splitlines()
    assert entry.startswith("billing:operate:sha256=")
    assert token not in entry
    (parsed,) = parse_api_tokens(entry)
    assert parsed.digest == token_digest(token)


def test_http_without_its_extra_says_what_to_install(pgworker: Pgworker, tmp_path: Path) -> None:
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError(name='fastapi')\n")
    result = pgworker("run", "--http", "127.0.0.1:0", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "pip install 'pgworker[http]'" in result.stderr
    assert len(result.stderr.splitlines()) == 1
