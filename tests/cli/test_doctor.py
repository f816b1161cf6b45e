"""`pgworker doctor`: what it finds, and what it advises."""

from __future__ import annotations

import json
import re
from uuid import UUID

import pytest

from tests.cli.conftest import Pgworker, Result, Sql, Start


def verdicts(result: Result) -> dict[str, str]:
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
        PGWORKER_TENANTS_URL="postgresql://other@127.0.0.1:1/postgres",
        PGWORKER_MIGRATIONS_DIR="/nowhere",
        PGWORKER_LISTEN_URL="postgresql://other@127.0.0.1:1/postgres",
    )
    assert result.returncode == 1
    found = verdicts(result)
    for subject in (
        *("migrations", "notifications", "encryption keys", "provider postgres", "credentials"),
    ):
        assert found[subject] == "fail", result.stdout


async def test_the_doctor_reports_what_is_overdue_since_when_and_what_to_do(
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

    output = pgworker("doctor", DATABASE_URL=database).stdout

    assert (
        f"due jobs that no worker has claimed: 1; the oldest for 3 h: Due ({row['id']})" in output
    )
    assert f"failed jobs: 1; the oldest for 4 d: Broke ({failed})" in output
    assert "the provider has refused supabase:0123abcd for 2 d: token expired" in output
    assert "-> start workers: pgworker run" in output


async def test_the_doctor_names_the_used_up_rate_limits_in_one_line(
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


def test_the_doctor_reports_every_invalid_setting(pgworker: Pgworker) -> None:
    result = pgworker("doctor", DATABASE_URL="nonsense", PGWORKER_CONCURRENCY="0")
    assert result.returncode == 1
    assert "DATABASE_URL" in result.stdout
    assert "PGWORKER_CONCURRENCY" in result.stdout


def test_the_doctor_reports_an_unreachable_database_without_its_password(
    pgworker: Pgworker,
) -> None:
    result = pgworker("doctor", DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/x")
    assert result.returncode == 1
    assert "127.0.0.1:1" in result.stdout
    assert "hunter2" not in result.stdout + result.stderr


@pytest.mark.parametrize("lines", [0, 1, 6, 9])
def test_the_doctor_ends_quietly_when_its_reader_has_left(
    start: Start, database: str, lines: int
) -> None:
    """As in `pgworker doctor | head`: all connections are closed properly."""
    process = start("doctor", DATABASE_URL=database, PGWORKER_PROVIDER="postgres")
    assert process.stdout is not None
    assert process.stderr is not None
    for _ in range(lines):
        assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    # 0: it had printed everything before the pipe was closed.
    assert process.wait(timeout=60) in {0, 1}


async def test_the_doctor_reports_that_the_schema_is_missing(
    pgworker: Pgworker, empty_database: str
) -> None:
    result = pgworker("doctor", DATABASE_URL=empty_database)
    assert result.returncode == 1
    assert "pgworker db migrate" in result.stdout
