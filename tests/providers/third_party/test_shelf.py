"""A provider that is a package of its own: the example of docs/providers.md, installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import pytest

from examples.shelf_provider.pgworker_shelf import ShelfProvider
from tests.support.server import RunServer, create_database, drop_database
from tests.support.worker_process import PROGRAM, QUICK

if TYPE_CHECKING:
    from pgworker.providers import Provider

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "shelf_provider"
SPARES = 2
SHELF = re.search(
    r"create table shelf .*?;", (EXAMPLE / "pgworker_shelf.py").read_text(), re.DOTALL
)
HISTORY = "select max(version) as head from supabase_migrations.schema_migrations"
FAILED = """
select last_error, error_kind from client_provisioning_jobs where status = 'failed'
"""
ROLES = """
do $$ begin
    create role anon nologin; create role authenticated nologin; create role service_role nologin;
exception when duplicate_object or unique_violation then null;
end $$
"""

Result = subprocess.CompletedProcess[str]
Pgworker = Callable[..., Result]


@pytest.fixture(scope="session")
def site_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the example, installed as its own pyproject.toml says."""
    target = tmp_path_factory.mktemp("site-packages")
    source = tmp_path_factory.mktemp("source")
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", target, source],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return target


@pytest.fixture
def pgworker(site_packages: Path, tmp_path: Path) -> Pgworker:
    """Run the command where the example is installed; keywords are environment variables."""

    def run(*arguments: str, **variables: str) -> Result:
        return subprocess.run(
            [PROGRAM, *arguments],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "PYTHONPATH": str(site_packages),
                **QUICK,
                **variables,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
async def shelf(server: RunServer, database: str) -> AsyncIterator[str]:
    """The DSN of a platform's database with table `shelf` and spare databases."""
    assert SHELF is not None
    names = [await create_database(server) for _ in range(SPARES)]
    connection = await asyncpg.connect(database)
    await connection.execute(ROLES)
    await connection.execute(SHELF[0])
    await connection.executemany(
        "insert into shelf (database, dsn) values ($1, $2)",
        [(name, server.dsn_of(name)) for name in names],
    )
    await connection.close()
    yield database
    for name in names:
        await drop_database(server, name)


async def fetch(dsn: str, query: str, *arguments: object) -> list[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(query, *arguments))
    finally:
        await connection.close()


def add(pgworker: Pgworker, *arguments: str, **variables: str) -> UUID:
    result = pgworker("clients", "add", *arguments, **variables)
    assert result.returncode == 0, result.stderr
    return UUID(result.stdout.strip())


def parse(result: Result) -> Any:
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout)


def test_the_example_is_a_provider() -> None:
    provider: Provider = ShelfProvider("postgresql://localhost/platform")
    assert provider.name == "shelf"


async def test_a_client_is_provisioned_by_a_provider_of_another_package(
    pgworker: Pgworker, shelf: str
) -> None:
    client_id = add(pgworker, "Acme", DATABASE_URL=shelf, PGWORKER_PROVIDER="shelf")
    worked = pgworker("run", "--drain", DATABASE_URL=shelf, PGWORKER_PROVIDER="shelf")
    assert worked.returncode == 0, worked.stderr

    shown = parse(pgworker("clients", "show", str(client_id), "--json", DATABASE_URL=shelf))
    assert shown["status"] == "ready"
    assert shown["project_ref"] == f"shelf-{client_id}"
    (row,) = await fetch(shelf, "select dsn from shelf where tenant = $1", f"shelf-{client_id}")
    (head,) = await fetch(
        row["dsn"], "select max(version) from supabase_migrations.schema_migrations"
    )
    assert head["max"] == shown["schema_version"]


async def test_a_client_may_ask_for_it_beside_the_default_provider(
    pgworker: Pgworker, shelf: str
) -> None:
    client_id = add(pgworker, "Acme", "--provider", "shelf", DATABASE_URL=shelf)
    assert pgworker("run", "--drain", DATABASE_URL=shelf).returncode == 0

    shown = parse(pgworker("clients", "show", str(client_id), "--json", DATABASE_URL=shelf))
    assert (shown["status"], shown["project_ref"]) == ("ready", f"shelf-{client_id}")


async def test_what_it_refuses_decides_what_becomes_of_the_job(
    pgworker: Pgworker, shelf: str
) -> None:
    for name in ("Acme", "Globex", "Initech"):
        add(pgworker, name, "--provider", "shelf", DATABASE_URL=shelf)
    assert pgworker("run", "--drain", DATABASE_URL=shelf).returncode == 1

    (failed,) = await fetch(shelf, FAILED)
    assert failed["last_error"] == "no database is free: insert more into table shelf"
    assert failed["error_kind"] == "quota"


async def test_the_doctor_shows_its_diagnosis(pgworker: Pgworker, shelf: str) -> None:
    def diagnose() -> dict[str, Any]:
        result = pgworker("doctor", "--json", DATABASE_URL=shelf, PGWORKER_PROVIDER="shelf")
        (found,) = [
            check for check in json.loads(result.stdout) if check["subject"] == "provider shelf"
        ]
        return dict(found)

    assert diagnose()["detail"] == f"{SPARES} databases are free"
    assert diagnose()["verdict"] == "ok"
    await fetch(shelf, "delete from shelf")
    assert diagnose()["verdict"] == "fail"
    assert diagnose()["advice"] == "prepare databases and insert them into table shelf"


async def test_reconcile_compares_what_it_lists_with_the_ledger(
    pgworker: Pgworker, shelf: str
) -> None:
    client_id = add(pgworker, "Acme", "--provider", "shelf", DATABASE_URL=shelf)
    assert pgworker("run", "--drain", DATABASE_URL=shelf).returncode == 0
    assert parse(pgworker("reconcile", "--provider", "shelf", "--json", DATABASE_URL=shelf)) == []

    orphan = f"shelf-{UUID(int=1)}"
    await fetch(shelf, "update shelf set tenant = $1 where tenant is null", orphan)
    await fetch(
        shelf,
        "delete from pgworker.tenant_secrets where client_id = $1 and field = 'dsn'",
        client_id,
    )
    result = pgworker("reconcile", "--provider", "shelf", "--json", DATABASE_URL=shelf)
    assert [(each["kind"], each["ref"]) for each in json.loads(result.stdout)] == [
        ("orphan", orphan),
        ("secrets_missing", f"shelf-{client_id}"),
    ]
    deleted = pgworker("reconcile", "--delete", orphan, "--yes", DATABASE_URL=shelf)
    assert deleted.returncode == 0, deleted.stderr
    assert await fetch(shelf, "select 1 from shelf where tenant = $1", orphan) == []


# -- what a package can get wrong -------------------------------------------------------------


def broken(site_packages: Path, *entry_points: str) -> str:
    """Add a package with these entry points to a copy of the path; return PYTHONPATH."""
    directory = site_packages / "broken"
    information = directory / "broken-1.dist-info"
    information.mkdir(parents=True, exist_ok=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (information / "entry_points.txt").write_text(
        "\n".join(["[pgworker.providers]", *entry_points]) + "\n"
    )
    return f"{directory}:{site_packages}"


@pytest.mark.parametrize(
    ("name", "entry_point", "message"),
    [
        ("neon", "neon = no_such_module:create", "can't be imported: No module named"),
        ("neon", "neon = pgworker_shelf:no_such_name", "can't be imported: module"),
        ("neon", "neon = pgworker_shelf:PREFIX", "(pgworker_shelf:PREFIX) is not a function"),
        (
            "neon",
            "neon = pgworker_shelf:create_provider",
            "makes a provider called 'shelf': the two names must be the same",
        ),
        (
            "shelf",
            "shelf = pgworker_shelf:create_provider",
            "2 packages have a provider 'shelf': keep one",
        ),
    ],
)
def test_an_unusable_entry_point_is_named_in_one_line(
    pgworker: Pgworker,
    site_packages: Path,
    database: str,
    name: str,
    entry_point: str,
    message: str,
) -> None:
    path = broken(site_packages, entry_point)
    result = pgworker("run", DATABASE_URL=database, PGWORKER_PROVIDER=name, PYTHONPATH=path)
    assert result.returncode == 78
    (line,) = result.stderr.splitlines()
    assert message in line


def test_an_unknown_provider_is_refused_with_all_that_are_installed(
    pgworker: Pgworker, database: str
) -> None:
    result = pgworker("run", DATABASE_URL=database, PGWORKER_PROVIDER="neon")
    assert result.returncode == 78
    assert result.stderr.strip().endswith("choose one of postgres, shelf, supabase")
    asked = pgworker("clients", "add", "Acme", "--provider", "neon", DATABASE_URL=database)
    assert asked.returncode == 2
    assert "postgres, shelf, supabase" in " ".join(asked.stderr.split())


def test_the_page_quotes_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "providers.md").read_text(encoding="utf-8")
    quotes = re.findall(r"^```(?:toml|python)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    files = [(EXAMPLE / name).read_text() for name in ("pyproject.toml", "pgworker_shelf.py")]
    assert len(quotes) >= 3
    for quote in quotes:
        assert any(quote in file for file in files), quote
