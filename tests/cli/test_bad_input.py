"""Bad input: one line that names the fix, the right exit code, and no partial change."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.conftest import Pgworker, Result, Sql


def the_only_line(result: Result) -> str:
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert result.stdout == ""
    return lines[0]


def with_parts(dsn: str, **parts: str) -> str:
    split = urlsplit(dsn)
    user = parts.get("user", split.username or "")
    password = parts.get("password", split.password or "")
    port = parts.get("port", str(split.port))
    host = f"{user}:{password}@{split.hostname}:{port}"
    return split._replace(netloc=host, path=parts.get("path", split.path)).geturl()


# -- a URL that isn't one ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "variable", ["DATABASE_URL", "PGWORKER_LISTEN_URL", "PGWORKER_TENANTS_URL"]
)
@pytest.mark.parametrize("command", [("db", "status"), ("run", "--drain"), ("clients", "list")])
def test_a_bracket_in_a_url_is_one_line_without_the_password(
    pgworker: Pgworker, database: str, variable: str, command: tuple[str, ...]
) -> None:
    url = "postgresql://me:hunter[2@localhost/app"
    result = pgworker(*command, **{"DATABASE_URL": database, variable: url})
    assert result.returncode == 78
    line = the_only_line(result)
    assert line.startswith(f"pgworker: {variable}: is not a usable URL")
    assert "hunter" not in line


# -- which client -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [("why",), ("retry",), ("cancel",), ("clients", "show"), ("jobs", "--client")]
)
async def test_an_unknown_name_is_answered_with_similar_ones(
    pgworker: Pgworker, sql: Sql, database: str, command: tuple[str, ...]
) -> None:
    await sql(database, "insert into clients (name) values ('Acme Bakery'), ('Zebra')")
    result = pgworker(*command, "Akme", DATABASE_URL=database)
    assert result.returncode == 1
    line = the_only_line(result)
    assert "'Akme'" in line
    assert "Acme Bakery" in line
    assert "Zebra" not in line


def test_an_unknown_id_is_named(pgworker: Pgworker, database: str) -> None:
    client_id = str(uuid.uuid4())
    result = pgworker("why", client_id, DATABASE_URL=database)
    assert result.returncode == 1
    assert client_id in the_only_line(result)


def test_a_malformed_uuid_is_neither_id_nor_name(pgworker: Pgworker, database: str) -> None:
    result = pgworker("retry", "3f0c-not-a-uuid", DATABASE_URL=database)
    assert result.returncode == 1
    assert "3f0c-not-a-uuid" in the_only_line(result)


async def test_a_name_that_two_clients_have_is_answered_with_an_id(
    pgworker: Pgworker, sql: Sql, database: str
) -> None:
    rows = await sql(database, "insert into clients (name) values ('Twin'), ('Twin') returning id")
    result = pgworker("why", "Twin", DATABASE_URL=database)
    assert result.returncode == 1
    line = the_only_line(result)
    assert any(str(row["id"]) in line for row in rows)


async def test_an_unknown_client_stops_a_retry_before_anything_is_changed(
    pgworker: Pgworker, sql: Sql, database: str
) -> None:
    await sql(database, "insert into clients (name, auto_provision) values ('Acme', true)")
    await sql(database, "update client_provisioning_jobs set status = 'failed'")
    result = pgworker("retry", "Acme", "Unknown", DATABASE_URL=database)
    assert result.returncode == 1
    (job,) = await sql(database, "select status from client_provisioning_jobs")
    assert job["status"] == "failed"


# -- the database -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("jobs",), ("run",), ("db", "migrate"), ("clients", "list")])
def test_an_unreachable_database_exits_69_and_names_the_host_but_no_password(
    pgworker: Pgworker, database: str, command: tuple[str, ...]
) -> None:
    url = with_parts(database, port="1", password="hunter2")
    result = pgworker(*command, DATABASE_URL=url)
    assert result.returncode == 69
    assert f"{urlsplit(database).hostname}:1" in result.stderr
    assert "hunter2" not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_password_exits_78_and_is_not_shown(pgworker: Pgworker, database: str) -> None:
    result = pgworker("jobs", DATABASE_URL=with_parts(database, password="hunter2"))
    if result.returncode == 0:
        pytest.skip("this server accepts any password")
    assert result.returncode == 78
    line = the_only_line(result)
    assert "DATABASE_URL" in line
    assert "hunter2" not in line


def test_a_missing_database_exits_78(pgworker: Pgworker, database: str) -> None:
    result = pgworker("jobs", DATABASE_URL=with_parts(database, path="/nowhere"))
    assert result.returncode == 78
    assert "nowhere" in the_only_line(result)


@pytest.mark.parametrize("command", [("jobs",), ("run",), ("clients", "add", "Acme")])
def test_an_empty_database_is_answered_with_the_command_to_run(
    pgworker: Pgworker, empty_database: str, command: tuple[str, ...]
) -> None:
    result = pgworker(*command, DATABASE_URL=empty_database)
    assert result.returncode == 1
    assert "pgworker db migrate" in the_only_line(result)


@pytest.mark.parametrize("command", [("run",), ("run", "--migrate"), ("db", "migrate"), ("jobs",)])
async def test_a_newer_schema_is_refused_and_left_as_it_is(
    pgworker: Pgworker, sql: Sql, database: str, command: tuple[str, ...]
) -> None:
    await sql(
        database,
        "insert into pgworker.schema_history (name, version, checksum) "
        "values ('migrations/9999_future.sql', 9999, 'x')",
    )
    before = await sql(database, "select * from pgworker.schema_history order by name")
    result = pgworker(*command, DATABASE_URL=database)
    assert result.returncode == 1
    assert "upgrade pgworker" in the_only_line(result)
    after = await sql(database, "select * from pgworker.schema_history order by name")
    assert after == before


async def test_a_table_clients_that_cannot_be_used_is_refused_by_column(
    pgworker: Pgworker, sql: Sql, empty_database: str
) -> None:
    await sql(empty_database, "create table clients (id bigint primary key, name text)")
    result = pgworker("db", "migrate", DATABASE_URL=empty_database)
    assert result.returncode == 1
    assert "clients.id" in the_only_line(result)
    (row,) = await sql(empty_database, "select to_regnamespace('pgworker') as schema")
    assert row["schema"] is None


async def test_a_role_without_rights_gets_one_line(
    pgworker: Pgworker, sql: Sql, empty_database: str
) -> None:
    role = f"pgworker_test_{uuid.uuid4().hex[:12]}"
    await sql(empty_database, f"create role {role} login password 'secret'")
    try:
        url = with_parts(empty_database, user=role, password="secret")
        result = pgworker("db", "migrate", DATABASE_URL=url)
        assert result.returncode == 78
        assert "permission denied" in the_only_line(result)
    finally:
        await sql(empty_database, f"drop role {role}")


# -- settings ---------------------------------------------------------------------------------


def test_every_mistake_in_the_settings_is_a_line_without_its_value(pgworker: Pgworker) -> None:
    result = pgworker(
        "run",
        DATABASE_URL="mysql://root:hunter2@host/db",
        PGWORKER_CONCURRENCY="many",
        PGWORKER_ENCRYPTION_KEYS="k1:tooshort",
    )
    assert result.returncode == 78
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    for name in ("DATABASE_URL", "PGWORKER_CONCURRENCY", "PGWORKER_ENCRYPTION_KEYS"):
        assert sum(name in line for line in lines) == 1
    assert "hunter2" not in result.stderr
    assert "tooshort" not in result.stderr


def test_a_worker_without_encryption_keys_does_not_start(pgworker: Pgworker, database: str) -> None:
    result = pgworker("run", DATABASE_URL=database, PGWORKER_ENCRYPTION_KEYS=None)
    assert result.returncode == 78
    assert "pgworker keys generate" in the_only_line(result)


def test_a_provider_that_lacks_a_setting_keeps_the_worker_from_starting(
    pgworker: Pgworker, database: str
) -> None:
    result = pgworker("run", DATABASE_URL=database, PGWORKER_PROVIDER="supabase")
    assert result.returncode == 78
    assert "SUPABASE_ACCESS_TOKEN" in the_only_line(result)


@pytest.mark.parametrize("command", [("run",), ("clients", "list"), ("jobs",)])
def test_an_unknown_provider_is_refused_with_the_known_ones(
    pgworker: Pgworker, database: str, command: tuple[str, ...]
) -> None:
    result = pgworker(*command, DATABASE_URL=database, PGWORKER_PROVIDER="hunter2")
    assert result.returncode == 78
    line = the_only_line(result)
    assert line.endswith(
        "PGWORKER_PROVIDER: there is no provider of that name: choose one of postgres, supabase"
    )


def test_without_a_token_http_is_for_this_machine_only(pgworker: Pgworker, database: str) -> None:
    asked = pgworker("run", "--http", "0.0.0.0:8080", DATABASE_URL=database)
    assert asked.returncode == 78
    line = the_only_line(asked)
    assert "PGWORKER_API_TOKENS is not set" in line
    assert "127.0.0.1:8080" in line


def test_an_address_that_is_taken_is_named(pgworker: Pgworker, database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        asked = pgworker("run", DATABASE_URL=database, PGWORKER_HTTP=f"127.0.0.1:{port}")
    assert asked.returncode == 1
    assert f"127.0.0.1:{port} can't be listened on" in the_only_line(asked)


# -- migrations -------------------------------------------------------------------------------


def no_directory(path: Path) -> str:
    return "does not exist"


def an_empty_directory(path: Path) -> str:
    path.mkdir()
    return "has no migration"


@pytest.mark.parametrize("make", [no_directory, an_empty_directory])
@pytest.mark.parametrize(
    "command", [("run",), ("schema", "lint"), ("schema", "status"), ("schema", "sync", "--all")]
)
def test_a_setting_that_names_no_migrations_exits_78(
    pgworker: Pgworker,
    database: str,
    tmp_path: Path,
    make: Callable[[Path], str],
    command: tuple[str, ...],
) -> None:
    directory = tmp_path / "migrations"
    problem = make(directory)
    result = pgworker(*command, DATABASE_URL=database, PGWORKER_MIGRATIONS_DIR=str(directory))
    assert result.returncode == 78
    line = the_only_line(result)
    assert str(directory) in line
    assert problem in line


def test_a_migration_that_is_not_utf8_is_named(
    pgworker: Pgworker, database: str, tmp_path: Path
) -> None:
    (tmp_path / "20260101000000_latin.sql").write_bytes(b"select '\xe9';")
    result = pgworker(
        "schema", "lint", DATABASE_URL=database, PGWORKER_MIGRATIONS_DIR=str(tmp_path)
    )
    assert result.returncode == 1
    assert "20260101000000_latin.sql is not UTF-8" in the_only_line(result)


def test_a_demo_without_migrations_says_where_they_are(pgworker: Pgworker, tmp_path: Path) -> None:
    result = pgworker("demo", PGWORKER_MIGRATIONS_DIR=None)
    assert result.returncode == 78
    assert "PGWORKER_MIGRATIONS_DIR" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "data" / "demo" / "postgres").exists()


# -- how a command is called ------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("retry",),
        ("retry", "Acme", "--failed"),
        ("retry", "Acme", "--kind", "quota"),
        ("retry", "--failed", "--kind", "nonsense"),
        ("jobs", "--status", "nonsense"),
        ("jobs", "--failed", "--status", "queued"),
        ("jobs", "--watch"),
        ("jobs", "--watch", "--json"),
        ("schema", "sync"),
        ("schema", "sync", "Acme", "--all"),
        ("clients", "add", "  "),
        ("secrets", "show", "Acme"),
        ("keys", "generate", "--id", "a b"),
        ("run", "--concurrency", "0"),
        ("demo", "--clients", "0"),
        ("nonsense",),
    ],
)
def test_a_command_called_wrongly_exits_2(pgworker: Pgworker, arguments: tuple[str, ...]) -> None:
    result = pgworker(*arguments, DATABASE_URL="postgresql://localhost:1/none")
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_scope_cannot_be_paused(pgworker: Pgworker, database: str) -> None:
    result = pgworker("pause", "provison", DATABASE_URL=database)
    assert result.returncode == 1
    assert "provision" in the_only_line(result)
