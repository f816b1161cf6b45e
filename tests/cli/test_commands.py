"""What commands print, for people and for programs."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from tests.cli.conftest import Pgworker, Result, Sql, Start
from tests.support.workers import TIMEOUT


def parsed(result: Result) -> Any:
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_the_version_is_the_installed_one(pgworker: Pgworker) -> None:
    assert re.fullmatch(r"pgworker \d+\.\d+\.\d+\S*\n", pgworker("--version").stdout)


def test_help_lists_every_command(pgworker: Pgworker) -> None:
    output = pgworker("--help").stdout
    for command in (
        *("run", "jobs", "retry", "cancel", "pause", "resume", "clients", "why", "db"),
        *("schema", "secrets", "keys", "reconcile", "doctor", "demo"),
    ):
        assert re.search(rf"^  {command} ", output, re.MULTILINE), command


# -- reading ----------------------------------------------------------------------------------


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
        output = pgworker(*command, DATABASE_URL=database, FORCE_COLOR=None).stdout
        assert str(failed) in output
        assert name in output
        assert error in output
        assert "\x1b" not in output


async def test_a_name_cannot_send_commands_to_the_terminal(
    pgworker: Pgworker, sql: Sql, database: str
) -> None:
    await sql(database, "insert into clients (name) values (E'\\x1b[31m[bold]evil\\nline')")
    output = pgworker("clients", "list", DATABASE_URL=database).stdout
    assert "\x1b" not in output
    assert "[bold]evil line" in output


async def test_why_says_what_to_do(pgworker: Pgworker, database: str, failed: UUID) -> None:
    output = pgworker("why", "Broke", DATABASE_URL=database).stdout
    assert "quota: the plan is full" in output
    assert f"pgworker cancel {failed}" in output
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


async def test_the_keys_of_json_are_stable(
    pgworker: Pgworker, database: str, acme: UUID, failed: UUID
) -> None:
    client = (
        *("client_id", "client_name", "status", "job_id", "workflow", "phase", "phase_number"),
        *("phase_count", "job_status", "attempts", "max_attempts", "error_kind", "last_error"),
        *("blocked_because", "next_try_at", "claimed_by", "since", "project_ref", "project_url"),
        *("schema_version", "provisioning_started_at", "provisioning_completed_at", "created_at"),
    )
    event = (
        *("at", "event", "actor", "from_status", "to_status", "from_phase", "to_phase"),
        *("error_kind", "error", "detail"),
    )
    job = (
        *("id", "client_id", "client_name", "workflow", "phase", "phase_number", "phase_count"),
        *("status", "priority", "attempts", "max_attempts", "crashes", "error_kind", "last_error"),
        *("waiting_for", "next_try_at", "claimed_by", "lease_expires_at", "created_at"),
        *("updated_at", "finished_at"),
    )

    def read(*command: str) -> Any:
        return parsed(pgworker(*command, "--json", DATABASE_URL=database))

    assert tuple(read("clients", "list")[0]) == client
    assert tuple(read("jobs")[0]) == job
    shown, why = read("clients", "show", str(failed)), read("why", str(failed))
    assert tuple(shown) == (*client, "phase_seconds", "last_answer", "events")
    assert tuple(why) == (*client, "phase_seconds", "last_answer", "breakers", "events", "advice")
    assert tuple(shown["events"][0]) == tuple(why["events"][0]) == event


# -- changing ---------------------------------------------------------------------------------


async def test_retry_names_a_client_that_has_not_failed_and_leaves_it_alone(
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


async def test_add_prints_the_id_and_stores_what_was_asked_for(
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
    _, output = await asyncio.to_thread(adding.communicate, timeout=TIMEOUT.total_seconds())
    assert adding.returncode == 1
    assert "no luck" in output


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


async def test_sync_names_a_tenant_that_fails_and_continues_with_the_others(
    pgworker: Pgworker, sql: Sql, database: str, acme: UUID
) -> None:
    # A tenant that the ledger doesn't know.
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
    _, logged = await asyncio.to_thread(process.communicate, timeout=TIMEOUT.total_seconds())
    assert (process.returncode, logged) == (1, "")


def test_lint_fails_for_errors_and_needs_no_database(pgworker: Pgworker, tmp_path: Path) -> None:
    (tmp_path / "20260101000000_open.sql").write_text("create table a (id int);\n")
    result = pgworker("schema", "lint", "--json", PGWORKER_MIGRATIONS_DIR=str(tmp_path))
    assert result.returncode == 1
    rules = {violation["rule"] for violation in json.loads(result.stdout)}
    assert "no-row-level-security" in rules
    assert pgworker("schema", "lint").returncode == 0


async def test_db_status_lists_what_is_pending(pgworker: Pgworker, empty_database: str) -> None:
    before = pgworker("db", "status", "--json", DATABASE_URL=empty_database)
    assert before.returncode == 1
    assert "migrations/0001_clients.sql" in json.loads(before.stdout)["pending"]
    assert pgworker("db", "migrate", DATABASE_URL=empty_database).returncode == 0
    again = pgworker("db", "migrate", DATABASE_URL=empty_database)
    assert "nothing to do" in again.stdout
    assert parsed(pgworker("db", "status", "--json", DATABASE_URL=empty_database))["current"]


# -- secrets and keys -------------------------------------------------------------------------


async def test_the_secrets_that_are_shown_open_the_tenant_and_the_audit_trail_records_it(
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
    output = pgworker("secrets", "show", "Acme", "--yes", DATABASE_URL=database).stdout
    assert shown["dsn"] in output


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
