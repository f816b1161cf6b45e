"""What commands print, for people and for programs."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest

from tests.support.workers import PATIENCE

if TYPE_CHECKING:
    from subprocess import CompletedProcess, Popen

Pgworker = Callable[..., "CompletedProcess[str]"]
Start = Callable[..., "Popen[str]"]
Sql = Callable[..., Any]


@pytest.fixture
async def acme(pgworker: Pgworker, sql: Sql, database: str) -> AsyncIterator[UUID]:
    """A client that was really provisioned, with the provider `postgres`."""
    (row,) = await sql(
        database, "insert into clients (name, auto_provision) values ('Acme', true) returning id"
    )
    assert pgworker("run", "--drain", DATABASE_URL=database).returncode == 0
    yield row["id"]
    tenant = f"pgw_{row['id'].hex}"
    await sql(database, f'drop database if exists "{tenant}" with (force)')
    await sql(database, f'drop role if exists "{tenant}"')


@pytest.fixture
async def failed(sql: Sql, database: str) -> UUID:
    """A client whose job has failed for want of quota."""
    (row,) = await sql(
        database, "insert into clients (name, auto_provision) values ('Broke', true) returning id"
    )
    await sql(
        database,
        "update client_provisioning_jobs set status = 'failed', error_kind = 'quota', "
        "last_error = 'the plan is full', finished_at = now()",
    )
    client_id: UUID = row["id"]
    return client_id


def parsed(result: CompletedProcess[str]) -> Any:
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_the_version_is_the_installed_one(pgworker: Pgworker) -> None:
    assert re.fullmatch(r"pgworker \d+\.\d+\.\d+\S*\n", pgworker("--version").stdout)


def test_help_lists_every_command(pgworker: Pgworker) -> None:
    told = pgworker("--help").stdout
    for command in (
        *("run", "jobs", "retry", "cancel", "pause", "resume", "clients", "why", "db"),
        *("schema", "secrets", "keys", "reconcile", "doctor", "demo"),
    ):
        assert re.search(rf"^  {command} ", told, re.MULTILINE), command


# -- looking ----------------------------------------------------------------------------------


async def test_jobs_as_json_are_rows_with_iso_times(
    pgworker: Pgworker, database: str, failed: UUID
) -> None:
    (job,) = parsed(pgworker("jobs", "--failed", "--json", DATABASE_URL=database))
    assert job["client_id"] == str(failed)
    assert job["status"] == "failed"
    assert datetime.fromisoformat(job["created_at"]).tzinfo is not None
    assert parsed(pgworker("jobs", "--status", "queued", "--json", DATABASE_URL=database)) == []


async def test_a_list_in_a_pipe_is_neither_cut_nor_coloured(
    pgworker: Pgworker, sql: Sql, database: str, failed: UUID
) -> None:
    error = "the provider says " + "no, " * 100 + "never"
    name = "Acme " * 30 + "and Sons"
    await sql(database, "update clients set name = $1", name)
    await sql(database, "update client_provisioning_jobs set last_error = $1", error)
    for command in (("jobs",), ("clients", "list")):
        told = pgworker(*command, DATABASE_URL=database, FORCE_COLOR=None).stdout
        assert str(failed) in told
        assert name in told
        assert error in told
        assert "\x1b" not in told


async def test_a_name_cannot_send_commands_to_the_terminal(
    pgworker: Pgworker, sql: Sql, database: str
) -> None:
    await sql(database, "insert into clients (name) values (E'\\x1b[31m[bold]evil\\nline')")
    told = pgworker("clients", "list", DATABASE_URL=database).stdout
    assert "\x1b" not in told
    assert "[bold]evil line" in told


async def test_why_says_what_to_press(pgworker: Pgworker, database: str, failed: UUID) -> None:
    told = pgworker("why", "Broke", DATABASE_URL=database).stdout
    assert "quota: the plan is full" in told
    assert f"pgworker cancel {failed}" in told
    as_json = parsed(pgworker("why", str(failed), "--json", DATABASE_URL=database))
    assert as_json["client_id"] == str(failed)
    assert any("--kind quota" in line for line in as_json["advice"])


async def test_a_ready_client_is_shown_with_its_phases(
    pgworker: Pgworker, database: str, acme: UUID
) -> None:
    shown = parsed(pgworker("clients", "show", "Acme", "--json", DATABASE_URL=database))
    assert list(shown["phase_seconds"]) == [
        "create_project", "await_project", "schema_sync", "smoke_checks"
    ]  # fmt: skip
    assert shown["events"][-1]["event"] == "succeeded"
    assert "nothing: it is ready" in pgworker("why", "Acme", DATABASE_URL=database).stdout


# -- pressing ---------------------------------------------------------------------------------


async def test_retry_leaves_alone_and_names_who_has_not_failed(
    pgworker: Pgworker, sql: Sql, database: str, failed: UUID
) -> None:
    await sql(database, "insert into clients (name, auto_provision) values ('Fine', true)")
    result = pgworker("retry", "Broke", "Fine", DATABASE_URL=database)
    assert result.returncode == 1
    assert "Broke" in result.stdout
    assert "Fine: left alone" in result.stderr
    assert await statuses(sql, database) == {"Broke": "queued", "Fine": "queued"}


async def test_failed_clients_are_retried_by_the_kind_of_their_error(
    pgworker: Pgworker, sql: Sql, database: str, failed: UUID
) -> None:
    other = pgworker("retry", "--failed", "--kind", "permanent", DATABASE_URL=database)
    assert other.returncode == 0
    assert await statuses(sql, database) == {"Broke": "failed"}
    assert pgworker("retry", "--failed", "--kind", "quota", DATABASE_URL=database).returncode == 0
    assert await statuses(sql, database) == {"Broke": "queued"}


async def test_cancel_ends_a_job_once(
    pgworker: Pgworker, sql: Sql, database: str, failed: UUID
) -> None:
    assert pgworker("cancel", "Broke", DATABASE_URL=database).returncode == 0
    assert await statuses(sql, database) == {"Broke": "cancelled"}
    assert pgworker("cancel", "Broke", DATABASE_URL=database).returncode == 1


def test_a_pause_lasts_until_resume(pgworker: Pgworker, database: str) -> None:
    assert "paused" in pgworker("pause", DATABASE_URL=database).stdout
    assert "already" in pgworker("pause", DATABASE_URL=database).stdout
    doctor = parsed(pgworker("doctor", "--json", DATABASE_URL=database))
    assert any("paused" in check["detail"] for check in doctor)
    assert "all: resumed" in pgworker("resume", DATABASE_URL=database).stdout
    assert "was not paused" in pgworker("resume", DATABASE_URL=database).stdout


async def statuses(sql: Sql, database: str) -> dict[str, str]:
    rows = await sql(database, "select client_name, status from pgworker.job_status")
    return {row["client_name"]: row["status"] for row in rows}


async def test_add_prints_the_id_and_keeps_the_wishes(
    pgworker: Pgworker, sql: Sql, database: str
) -> None:
    result = pgworker("clients", "add", "New", "--region", "eu-west-1", DATABASE_URL=database)
    (row,) = await sql(database, "select id, additional_settings from clients")
    assert result.stdout == f"{row['id']}\n"
    assert json.loads(row["additional_settings"]) == {"region": "eu-west-1"}


async def test_add_with_wait_ends_with_1_when_the_client_fails(
    start: Callable[..., Any], sql: Sql, database: str
) -> None:
    adding = start("clients", "add", "New", "--wait", DATABASE_URL=database)
    await asyncio.to_thread(adding.stdout.readline)
    await sql(
        database,
        "with job as (update client_provisioning_jobs set status = 'failed') "
        "update clients set provisioning_status = 'failed', provisioning_error = 'no luck'",
    )
    _, told = await asyncio.to_thread(adding.communicate, timeout=PATIENCE.total_seconds())
    assert adding.returncode == 1
    assert "no luck" in told


# -- schema -----------------------------------------------------------------------------------


async def test_sync_brings_a_ready_tenant_to_a_new_migration(
    pgworker: Pgworker, sql: Sql, database: str, acme: UUID, tmp_path: Path
) -> None:
    migrations = tmp_path / "migrations"
    examples = Path(__file__).parents[2] / "supabase" / "migrations"
    migrations.mkdir()
    for file in examples.glob("*.sql"):
        (migrations / file.name).write_bytes(file.read_bytes())
    (migrations / "20270101000000_more.sql").write_text("create schema more;")
    settings = {"DATABASE_URL": database, "PGWORKER_MIGRATIONS_DIR": str(migrations)}

    (before,) = parsed(pgworker("schema", "status", "--json", **settings))
    assert (before["position"], before["missing"]) == ("behind", 1)
    synced = pgworker("schema", "sync", "--all", **settings)
    assert synced.returncode == 0, synced.stderr
    assert "applied 20270101000000" in synced.stdout
    assert "current" in pgworker("schema", "sync", "Acme", **settings).stdout
    (after,) = parsed(pgworker("schema", "status", "--json", **settings))
    assert (after["position"], after["schema_version"]) == ("current", "20270101000000")


async def test_sync_names_the_tenants_that_fail_and_goes_on(
    pgworker: Pgworker, sql: Sql, database: str, acme: UUID
) -> None:
    # A tenant that pgworker knows nothing of.
    await sql(database, "insert into clients (name, project_ref) values ('Ghost', 'nowhere')")
    result = pgworker("schema", "sync", "--all", DATABASE_URL=database)
    assert result.returncode == 1
    assert "Acme: current" in result.stdout
    assert "Ghost: it has no tenant yet" in result.stderr


async def test_sync_ends_quietly_when_its_reader_has_left(
    start: Start, database: str, acme: UUID
) -> None:
    process = start("schema", "sync", "--all", DATABASE_URL=database)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, logged = await asyncio.to_thread(process.communicate, timeout=PATIENCE.total_seconds())
    assert (process.returncode, logged) == (1, "")


def test_lint_fails_for_errors_and_needs_no_database(pgworker: Pgworker, tmp_path: Path) -> None:
    (tmp_path / "20260101000000_open.sql").write_text("create table a (id int);\n")
    result = pgworker("schema", "lint", "--json", PGWORKER_MIGRATIONS_DIR=str(tmp_path))
    assert result.returncode == 1
    rules = {finding["rule"] for finding in json.loads(result.stdout)}
    assert "no-row-level-security" in rules
    assert pgworker("schema", "lint").returncode == 0


async def test_db_status_tells_what_is_pending(pgworker: Pgworker, empty_database: str) -> None:
    before = pgworker("db", "status", "--json", DATABASE_URL=empty_database)
    assert before.returncode == 1
    assert "migrations/0001_clients.sql" in json.loads(before.stdout)["pending"]
    assert pgworker("db", "migrate", DATABASE_URL=empty_database).returncode == 0
    again = pgworker("db", "migrate", DATABASE_URL=empty_database)
    assert "nothing to do" in again.stdout
    assert parsed(pgworker("db", "status", "--json", DATABASE_URL=empty_database))["current"]


# -- secrets and keys -------------------------------------------------------------------------


async def test_one_can_log_in_with_what_secrets_show_prints_and_the_trail_tells(
    pgworker: Pgworker, sql: Sql, database: str, acme: UUID
) -> None:
    shown = parsed(pgworker("secrets", "show", "Acme", "--yes", "--json", DATABASE_URL=database))
    assert set(shown) == {"project_ref", "project_url", "dsn", "db_password"}
    assert shown["db_password"] not in shown["project_url"]
    connection = await asyncpg.connect(shown["dsn"])
    try:
        assert await connection.fetchval("select current_user") == shown["project_ref"]
    finally:
        await connection.close()
    (event,) = await sql(
        database, "select client_id from pgworker.events where event = 'secrets_shown'"
    )
    assert event["client_id"] == acme
    told = pgworker("secrets", "show", "Acme", "--yes", DATABASE_URL=database).stdout
    assert shown["dsn"] in told


async def test_rotation_moves_every_secret_to_the_first_key(
    pgworker: Pgworker, environment: dict[str, str], database: str, acme: UUID
) -> None:
    new = pgworker("keys", "generate", "--id", "new").stdout.strip()
    assert new.startswith("new:")
    both = f"{new},{environment['PGWORKER_ENCRYPTION_KEYS']}"
    doctor = parsed(
        pgworker("doctor", "--json", DATABASE_URL=database, PGWORKER_ENCRYPTION_KEYS=both)
    )
    assert any("keys rotate" in str(check["advice"]) for check in doctor)
    rotated = pgworker("keys", "rotate", DATABASE_URL=database, PGWORKER_ENCRYPTION_KEYS=both)
    assert rotated.returncode == 0, rotated.stderr
    shown = pgworker(
        "secrets", "show", "Acme", "--yes", DATABASE_URL=database, PGWORKER_ENCRYPTION_KEYS=new
    )
    assert shown.returncode == 0, shown.stderr


# -- doctor -----------------------------------------------------------------------------------


def verdicts(result: CompletedProcess[str]) -> dict[str, str]:
    return {check["subject"]: check["verdict"] for check in json.loads(result.stdout)}


async def test_a_healthy_platform_passes_the_doctor(
    pgworker: Pgworker, database: str, acme: UUID
) -> None:
    result = pgworker("doctor", "--json", DATABASE_URL=database)
    assert result.returncode == 0, result.stdout
    found = verdicts(result)
    assert found.pop("workers") == "warn"
    assert set(found.values()) == {"ok"}


async def test_the_doctor_finds_what_is_wrong(
    pgworker: Pgworker, sql: Sql, database: str, acme: UUID
) -> None:
    await sql(
        database,
        "select pgworker.open_breaker('supabase:0123abcd', 'token expired', interval '30 s')",
    )
    other_key = pgworker("keys", "generate").stdout.strip()
    result = pgworker(
        "doctor",
        "--json",
        DATABASE_URL=database,
        PGWORKER_ENCRYPTION_KEYS=other_key,
        PGWORKER_TENANTS_URL="postgresql://nobody@127.0.0.1:1/postgres",
        PGWORKER_MIGRATIONS_DIR="/nowhere",
        PGWORKER_LISTEN_URL="postgresql://nobody@127.0.0.1:1/postgres",
    )
    assert result.returncode == 1
    found = verdicts(result)
    for subject in (
        *("migrations", "notifications", "encryption keys", "provider postgres", "credentials"),
    ):
        assert found[subject] == "fail", result.stdout


async def test_the_doctor_tells_what_is_late_since_when_and_what_to_do(
    pgworker: Pgworker, sql: Sql, database: str, failed: UUID
) -> None:
    (row,) = await sql(
        database, "insert into clients (name, auto_provision) values ('Due', true) returning id"
    )
    await sql(
        database,
        "update client_provisioning_jobs set run_at = now() - interval '3 h',"
        " finished_at = finished_at - interval '4 d'",
    )
    await sql(
        database,
        "select pgworker.open_breaker('supabase:0123abcd', 'token expired', interval '30 s')",
    )
    await sql(database, "update pgworker.breakers set opened_at = now() - interval '2 days'")

    told = pgworker("doctor", DATABASE_URL=database).stdout

    assert f"due jobs that no worker has claimed: 1; the oldest for 3 h: Due ({row['id']})" in told
    assert f"failed jobs: 1; the oldest for 4 d: Broke ({failed})" in told
    assert "the provider has refused supabase:0123abcd for 2 d: token expired" in told
    assert "-> start workers: pgworker run" in told


async def test_the_doctor_tells_in_one_line_which_rate_limits_are_used_up(
    pgworker: Pgworker, sql: Sql, database: str, acme: UUID
) -> None:
    await sql(
        database,
        "select pgworker.report_limit('supabase:0123abcd', 'acme-org', endpoint, null, 120, used,"
        " now(), now() + interval '42 s')"
        " from (values ('POST /v1/projects', 120), ('GET /v1/projects', 119)) as v(endpoint, used)",
    )
    result = pgworker("doctor", "--json", DATABASE_URL=database)

    assert result.returncode == 0, result.stdout
    (limits,) = [each for each in json.loads(result.stdout) if each["subject"] == "rate limits"]
    assert limits["verdict"] == "warn"
    assert re.fullmatch(
        r"used up: POST /v1/projects \(acme-org\) for [34]\d s", limits["detail"]
    ), limits


def test_the_doctor_tells_every_bad_setting(pgworker: Pgworker) -> None:
    result = pgworker("doctor", DATABASE_URL="nonsense", PGWORKER_CONCURRENCY="0")
    assert result.returncode == 1
    assert "DATABASE_URL" in result.stdout
    assert "PGWORKER_CONCURRENCY" in result.stdout


def test_the_doctor_tells_that_the_database_cannot_be_reached(pgworker: Pgworker) -> None:
    result = pgworker("doctor", DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/x")
    assert result.returncode == 1
    assert "127.0.0.1:1" in result.stdout
    assert "hunter2" not in result.stdout + result.stderr


@pytest.mark.parametrize("lines", [0, 1, 6, 9])
def test_the_doctor_ends_quietly_when_nobody_reads_on(
    start: Start, database: str, lines: int
) -> None:
    """As in `pgworker doctor | head`: whatever is open is closed in good order."""
    process = start("doctor", DATABASE_URL=database, PGWORKER_PROVIDER="postgres")
    assert process.stdout is not None
    assert process.stderr is not None
    for _ in range(lines):
        assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    # 0: it had said everything before the pipe was closed.
    assert process.wait(timeout=60) in {0, 1}


async def test_the_doctor_tells_that_the_schema_is_missing(
    pgworker: Pgworker, empty_database: str
) -> None:
    result = pgworker("doctor", DATABASE_URL=empty_database)
    assert result.returncode == 1
    assert "pgworker db migrate" in result.stdout
