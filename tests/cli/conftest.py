"""The command itself, as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

PROGRAM = Path(sysconfig.get_path("scripts"), "pgworker")
ROOT = Path(__file__).parents[2]
KEY = "test:" + "A" * 43 + "="

# What the fixtures below return; the modules of this folder import the names from here.
Result = subprocess.CompletedProcess[str]
Pgworker = Callable[..., Result]
Start = Callable[..., subprocess.Popen[str]]
Sql = Callable[..., Any]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What the process sees: nothing of ours, and a working directory without a .env."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PGWORKER_DATA_DIR": str(tmp_path / "data"),
        "PGWORKER_ENCRYPTION_KEYS": KEY,
        "PGWORKER_MIGRATIONS_DIR": str(ROOT / "supabase" / "migrations"),
    }


@pytest.fixture
def pgworker(environment: dict[str, str], tmp_path: Path) -> Pgworker:
    """Run the command to its end; keywords are environment variables, None takes one away."""

    def run(*arguments: str, **variables: str | None) -> Result:
        merged: dict[str, str | None] = {**environment, **variables}
        return subprocess.run(
            [PROGRAM, *arguments],
            cwd=tmp_path,
            env={name: value for name, value in merged.items() if value is not None},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start the command and leave it running; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [PROGRAM, *arguments],
            cwd=tmp_path,
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=60)


async def execute(dsn: str, statement: str, *arguments: object) -> list[asyncpg.Record]:
    """Run one statement as any other program would."""
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(statement, *arguments))
    finally:
        await connection.close()


@pytest.fixture
def sql() -> Sql:
    return execute


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
    """A client whose job has failed because a quota is used up."""
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
