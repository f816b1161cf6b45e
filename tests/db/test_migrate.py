"""pgworker's own schema: made, adopted, refused, and made only once."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from pgworker.db import migrate as migrating
from pgworker.db.migrate import Applied, SqlFile, compare, migrate, read_own_files, read_state
from pgworker.errors import SchemaMismatch, StatementRefused, UnusableTable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ALL = tuple(file.name for file in read_own_files())
COLUMNS = {
    "id": "uuid",
    "name": "text",
    "auto_provision": "boolean",
    "provisioning_status": "text",
    "provisioning_error": "text",
    "provisioning_started_at": "timestamp with time zone",
    "provisioning_completed_at": "timestamp with time zone",
    "schema_version": "text",
    "project_ref": "text",
    "project_url": "text",
    "additional_settings": "jsonb",
    "created_at": "timestamp with time zone",
    "updated_at": "timestamp with time zone",
}


@pytest.fixture
async def connection(empty_database: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(empty_database)
    yield opened
    await opened.close()


async def columns_of(connection: asyncpg.Connection, table: str) -> dict[str, str]:
    rows = await connection.fetch(
        "select column_name, data_type from information_schema.columns"
        " where table_schema = 'public' and table_name = $1",
        table,
    )
    return {row["column_name"]: row["data_type"] for row in rows}


async def objects(connection: asyncpg.Connection) -> list[Any]:
    """Return everything of ours that a refused migration could have left behind."""
    rows = await connection.fetch(
        "select nspname || '.' || relname as name from pg_class as class"
        " inner join pg_namespace as namespace on class.relnamespace = namespace.oid"
        " where nspname in ('public', 'pgworker')"
        " union all select nspname from pg_namespace where nspname = 'pgworker'"
        " union all select attname from pg_attribute where attnum > 0"
        " and attrelid = to_regclass('public.clients') order by name"
    )
    return [row["name"] for row in rows]


# -- an empty database ------------------------------------------------------------------------


async def test_an_empty_database_gets_the_whole_schema(connection: asyncpg.Connection) -> None:
    assert await migrate(connection) == ALL

    assert await columns_of(connection, "clients") == COLUMNS
    assert (await read_state(connection)).is_current


async def test_ids_of_clients_come_in_the_order_of_time(connection: asyncpg.Connection) -> None:
    await migrate(connection)
    ids = await connection.fetch(
        "insert into clients (name) select n::text from generate_series(1, 50) n returning id"
    )
    milliseconds = await connection.fetchval("select extract(epoch from clock_timestamp()) * 1000")

    assert len({row["id"] for row in ids}) == 50
    for row in ids:
        assert (row["id"].version, row["id"].variant) == (7, uuid.RFC_4122)
        # RFC 9562, 5.7: the first 48 bits are the milliseconds since 1970.
        assert 0 <= milliseconds - (row["id"].int >> 80) < 60_000


@pytest.mark.parametrize("own_columns", ["", ", vat text"])
@pytest.mark.parametrize("security", ["disable", "enable"])
async def test_the_ids_of_an_adopted_table_are_made_as_before(
    connection: asyncpg.Connection, own_columns: str, security: str
) -> None:
    """Also of one that looks like a table of ours."""
    await connection.execute(
        "create table clients"
        f" (id uuid primary key default gen_random_uuid(), name text{own_columns});"
        f"alter table clients {security} row level security"
    )
    await migrate(connection)

    made = await connection.fetchval("insert into clients (name) values ('Acme') returning id")
    assert made.version == 4


async def test_a_second_run_finds_nothing_to_do(connection: asyncpg.Connection) -> None:
    await migrate(connection)
    history = await connection.fetch("select * from pgworker.schema_history order by name")

    assert await migrate(connection) == ()

    assert await connection.fetch("select * from pgworker.schema_history order by name") == history


async def test_two_at_once_apply_it_once(empty_database: str) -> None:
    async def run() -> tuple[str, ...]:
        connection = await asyncpg.connect(empty_database)
        try:
            return await migrate(connection)
        finally:
            await connection.close()

    applied = await asyncio.gather(*(run() for _ in range(4)))
    assert sorted(name for names in applied for name in names) == sorted(ALL)


async def test_looking_at_the_state_changes_nothing(connection: asyncpg.Connection) -> None:
    state = await read_state(connection)

    assert tuple(file.name for file in state.pending) == ALL
    assert await objects(connection) == []
    with pytest.raises(SchemaMismatch, match="run pgworker db migrate"):
        state.refuse_if_not_current()


async def test_it_works_without_superuser_rights(
    connection: asyncpg.Connection, server_dsn: str
) -> None:
    role = f"owner_{await connection.fetchval('select pg_backend_pid()')}"
    await connection.execute(f"create role {role}")
    try:
        database = await connection.fetchval("select current_database()")
        await connection.execute(f'grant create on database "{database}" to {role}')
        await connection.execute(f"grant create, usage on schema public to {role}")
        await connection.execute(f"set role {role}")
        await migrate(connection)
        await connection.execute("insert into clients (name, auto_provision) values ('A', true)")
        assert await connection.fetchval("select id from pgworker.claim('w', 1, '30 s')") == 1
    finally:
        await connection.execute("reset role")
        await connection.execute(f"drop owned by {role}")
        await connection.execute(f"drop role {role}")


# -- an existing table ------------------------------------------------------------------------


async def test_an_existing_clients_table_is_adopted_with_all_that_it_has(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        "create table clients ("
        " id uuid primary key default gen_random_uuid(),"
        " name varchar(80),"
        " vat_number text default 'none',"
        " auto_provision boolean default true,"
        " provisioning_status text default 'pending',"
        " created_at timestamptz)"
    )
    await connection.execute("insert into clients (name) values ('Acme'), (null)")

    await migrate(connection)

    columns = await columns_of(connection, "clients")
    assert columns == COLUMNS | {"name": "character varying", "vat_number": "text"}
    rows = await connection.fetch("select * from clients order by name = 'Acme' desc")
    assert (rows[0]["name"], rows[0]["vat_number"]) == ("Acme", "none")
    assert rows[0]["provisioning_status"] == "pending"
    assert rows[0]["additional_settings"] == "{}"
    assert rows[1]["name"] == str(rows[1]["id"])
    # Its own defaults stay, and those who were there already are not provisioned.
    assert await connection.fetchval("select count(*) from client_provisioning_jobs") == 0
    await connection.execute("insert into clients (name) values ('Bolt')")
    assert await connection.fetchval("select count(*) from client_provisioning_jobs") == 1


async def test_an_adopted_table_keeps_the_security_it_has(connection: asyncpg.Connection) -> None:
    await connection.execute("create table clients (id uuid primary key, name text)")

    await migrate(connection)

    assert not await connection.fetchval(
        "select relrowsecurity from pg_class where oid = 'clients'::regclass"
    )


@pytest.mark.parametrize(
    ("parameters", "afterwards"),
    [
        ("", ["fillfactor=40"]),
        ("with (fillfactor = 70)", ["fillfactor=70"]),
        ("with (autovacuum_enabled = true)", ["autovacuum_enabled=true"]),
    ],
)
async def test_an_adopted_table_keeps_the_storage_parameters_that_it_has(
    connection: asyncpg.Connection, parameters: str, afterwards: list[str]
) -> None:
    await connection.execute(f"create table clients (id uuid primary key, name text) {parameters}")

    await migrate(connection)

    assert afterwards == await connection.fetchval(
        "select reloptions from pg_class where oid = 'clients'::regclass"
    )


async def test_a_partitioned_clients_table_is_adopted(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "create table clients (id uuid primary key default gen_random_uuid(), name text)"
        " partition by hash (id);"
        "create table clients_0 partition of clients for values with (modulus 1, remainder 0)"
    )

    await migrate(connection)

    await connection.execute("insert into clients (name, auto_provision) values ('Acme', true)")
    assert await connection.fetchval("select id from pgworker.claim('w', 1, '30 s')") == 1
    assert (
        await connection.fetchval("select provisioning_status from clients") == "creating_project"
    )


@pytest.mark.parametrize(
    ("ddl", "named"),
    [
        ("create table clients (id bigint primary key)", "clients.id is of type int8"),
        ("create table clients (id text primary key)", "clients.id is of type text"),
        ("create table clients (id uuid primary key, name json)", "clients.name"),
        (
            "create table clients (id uuid primary key, auto_provision text)",
            "clients.auto_provision is of type text; pgworker needs bool",
        ),
        (
            "create table clients (id uuid primary key, additional_settings json)",
            "clients.additional_settings is of type json; pgworker needs jsonb",
        ),
        (
            "create table clients (id uuid primary key, created_at date)",
            "clients.created_at is of type date;",
        ),
        (
            "create table clients (id uuid primary key, provisioning_status varchar(10))",
            "clients.provisioning_status holds 10 characters",
        ),
        (
            "create table clients (id uuid primary key, provisioning_error varchar(255))",
            "clients.provisioning_error holds 255 characters",
        ),
        (
            "create type t as enum (); create table clients (id uuid unique, project_ref t)",
            "clients.project_ref is of type t;",
        ),
        ("create table clients (id uuid, name text)", "clients.id must be a uuid primary key"),
        ("create table clients (name text)", "clients.id must be a uuid primary key"),
        ("create view clients as select gen_random_uuid() as id", "public.clients is not a table"),
        (
            "create materialized view clients as select gen_random_uuid() as id",
            "public.clients is not a table",
        ),
    ],
)
async def test_an_unusable_clients_table_is_refused_by_name_with_nothing_written(
    connection: asyncpg.Connection, ddl: str, named: str
) -> None:
    await connection.execute(ddl)
    before = await objects(connection)

    with pytest.raises(UnusableTable, match=named) as refusal:
        await migrate(connection)

    assert "\n" not in str(refusal.value)
    assert await objects(connection) == before
    # The lock is free again: another run may follow the mending.
    assert not await connection.fetchval(
        "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
    )


async def test_a_unique_id_is_as_good_as_a_primary_key(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "create table clients (number bigint primary key, id uuid not null unique)"
    )

    assert await migrate(connection) == ALL


# -- another release's schema -----------------------------------------------------------------


async def test_a_newer_schema_is_refused(connection: asyncpg.Connection) -> None:
    await migrate(connection)
    await connection.execute(
        "insert into pgworker.schema_history values ('migrations/9999_future.sql', 9999, 'x')"
    )

    with pytest.raises(SchemaMismatch, match=r"newer than this program \(it has migrations/9999"):
        await migrate(connection)
    with pytest.raises(SchemaMismatch, match="upgrade pgworker"):
        (await read_state(connection)).refuse_if_not_current()


async def test_an_applied_migration_that_was_changed_is_refused(
    connection: asyncpg.Connection,
) -> None:
    await migrate(connection)
    await connection.execute("update pgworker.schema_history set checksum = 'x' where version = 2")

    with pytest.raises(SchemaMismatch, match=r"0002_jobs\.sql is not the one of this program"):
        await migrate(connection)


async def test_an_object_that_has_changed_is_applied_again(
    connection: asyncpg.Connection,
) -> None:
    await migrate(connection)
    await connection.execute(
        "update pgworker.schema_history set checksum = 'older' where name = 'functions/pause.sql'"
    )
    await connection.execute("drop function pgworker.pause")

    assert await migrate(connection) == ("functions/pause.sql",)

    assert await connection.fetchval("select pgworker.pause()")


async def test_an_older_schema_is_brought_up_to_date_file_by_file(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = read_own_files()
    for count in range(1, len(files) + 1):
        # Objects need all tables: only the numbered files have states between them.
        if files[count - 1].version is None:
            break
        monkeypatch.setattr(migrating, "read_own_files", lambda count=count: files[:count])
        assert await migrate(connection) == (files[count - 1].name,)
    monkeypatch.undo()

    await migrate(connection)

    assert (await read_state(connection)).is_current


async def test_a_file_that_fails_leaves_nothing_of_it_behind(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(connection)
    broken = SqlFile("migrations/0099_broken.sql", 99, "create table half (); select 1 / 0;")
    monkeypatch.setattr(migrating, "read_own_files", lambda: (*read_own_files(), broken))

    with pytest.raises(StatementRefused, match=r"division by zero \[22012\]"):
        await migrate(connection)

    assert await connection.fetchval("select to_regclass('half')") is None
    monkeypatch.undo()
    assert await migrate(connection) == ()


def test_pending_files_are_found_without_a_database() -> None:
    def row(name: str, version: int | None, text: str) -> Applied:
        file = SqlFile(name, version, text)
        return Applied(name, version, file.checksum, applied_at=None)  # type: ignore[arg-type]  # not looked at

    one, two = SqlFile("migrations/0001_a.sql", 1, "a"), SqlFile("functions/f.sql", None, "f")

    assert compare((one, two), ()).pending == (one, two)
    assert compare((one, two), (row(one.name, 1, "a"), row(two.name, None, "f"))).is_current
    assert compare((one, two), (row(one.name, 1, "a"), row(two.name, None, "g"))).pending == (two,)
    assert compare((one,), (row(one.name, 1, "b"),)).changed == (one.name,)
    assert compare((one,), (row(one.name, 1, "a"), row("x", 2, ""))).newer == ("x",)
    # An object that is no longer ours may stay.
    assert compare((one,), (row(one.name, 1, "a"), row("x", None, ""))).is_current
