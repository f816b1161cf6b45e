"""What a file does to its session ends with the file, whichever way SQL takes to the tenant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from pgworker.errors import MigrationFailed, MigrationRefused
from pgworker.schema.apply import apply_migrations
from pgworker.schema.directory import read_canonical_set
from pgworker.schema.migrations import parse_migration
from pgworker.tenants.postgres_connection import connect_postgres
from tests.support.server import create_database, drop_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.support.server import RunServer

SHARED = Path(__file__).parents[3] / "shared" / "cases"

# Each leaves something in its session that would change what the next file does.
LEAKS = {
    "a temporary table": (
        "create table public.customers (id int primary key, name text)",
        "create temp table customers as select 1 as id",
        "alter table customers add column email text; create index on customers (email)",
    ),
    "how backslashes are read": (
        (
            "set standard_conforming_strings = off; set escape_string_warning = off;"
            " create table public.paths (p text)"
        ),
        r"insert into public.paths values ('C:\new\table')",
    ),
    "a search path": (
        "create schema app; set search_path = app; create table t (id int)",
        "create table t (id int)",
    ),
    "a prepared statement": (
        "prepare again as select 1",
        "prepare again as select 2; create table t (id int)",
    ),
    "a cursor": (
        "declare open_one cursor with hold for select 1",
        "declare open_one cursor with hold for select 2; create table t (id int)",
    ),
    "a default": (
        "set default_with_oids = off; set check_function_bodies = off; create table s (id int)",
        "create table t (at timestamptz default now())",
    ),
    "the last value of a sequence": (
        "create sequence s; select nextval('s')",
        (
            "create table t (n bigint); do $$ begin perform lastval();"
            " insert into t values (1); exception when object_not_in_prerequisite_state then"
            " insert into t values (0); end $$"
        ),
    ),
    "a role": (
        "create table a (id int); set role pg_database_owner",
        "create table b (id int)",
    ),
    "a session's lock": (
        "select pg_advisory_lock(4711)",
        (
            "create table t (locks bigint); insert into t select count(*) from pg_locks"
            " where locktype = 'advisory' and objid = 4711 and pid = pg_backend_pid()"
        ),
    ),
}
CATALOGUE = """
select
    class.oid::regclass::text as name,
    class.relkind::text as kind,
    pg_get_userbyid(class.relowner) as owner,
    array(
        select attribute.attname || ' ' || format_type(attribute.atttypid, attribute.atttypmod)
        from pg_attribute as attribute
        where attribute.attrelid = class.oid and attribute.attnum > 0
        order by attribute.attnum
    ) as columns
from pg_class as class
inner join pg_namespace as namespace on class.relnamespace = namespace.oid
where
    namespace.nspname not like 'pg\\_%'
    and namespace.nspname not in ('information_schema', 'supabase_migrations')
order by 1
"""


@dataclass
class Stateless:
    """What `database/query` is like: a new session for each call."""

    dsn: str
    keeps_session: ClassVar[bool] = False

    async def fetch(self, sql: str) -> list[dict[str, Any]]:
        async with connect_postgres(self.dsn) as connection:
            return await connection.fetch(sql)

    async def execute(self, sql: str) -> None:
        async with connect_postgres(self.dsn) as connection:
            await connection.execute(sql)


def write(directory: Path, files: tuple[str, ...]) -> Path:
    directory.mkdir(exist_ok=True)
    for number, sql in enumerate(files, start=1):
        (directory / f"2026010{number}000000_x.sql").write_text(sql, encoding="utf-8")
    return directory


@pytest.fixture
async def databases(server: RunServer) -> AsyncIterator[list[str]]:
    names = [await create_database(server) for _ in range(3)]
    yield [server.dsn_of(name) for name in names]
    for name in names:
        await drop_database(server, name)


async def apply_in_three_ways(directory: Path, databases: list[str], tmp_path: Path) -> None:
    """Apply all files on one session, one by one on sessions of their own, and over HTTP's way."""
    at_once, one_by_one, stateless = databases
    canonical = read_canonical_set(directory)
    async with connect_postgres(at_once) as connection:
        await apply_migrations(connection, canonical)
    growing = tmp_path / "growing"
    growing.mkdir()
    for migration in canonical.migrations:
        (growing / migration.file).write_text(migration.text, encoding="utf-8")
        async with connect_postgres(one_by_one) as connection:
            await apply_migrations(connection, read_canonical_set(growing))
    await apply_migrations(Stateless(stateless), canonical)


async def read_catalogue(dsn: str) -> list[dict[str, Any]]:
    """Return every relation with its columns, and the rows of each small table."""
    async with connect_postgres(dsn) as connection:
        found = await connection.fetch(CATALOGUE)
        for row in found:
            if row["kind"] == "r":
                row["rows"] = await connection.fetch(
                    f"select * from {row['name']} order by 1 limit 20"
                )
        return found


@pytest.mark.parametrize("leak", sorted(LEAKS.keys() - {"a default"}))
async def test_a_tenant_is_the_same_whether_files_share_a_session_or_not(
    databases: list[str], tmp_path: Path, leak: str
) -> None:
    await apply_in_three_ways(write(tmp_path / "set", LEAKS[leak]), databases, tmp_path)

    at_once, one_by_one, stateless = [await read_catalogue(dsn) for dsn in databases]
    assert at_once == one_by_one
    assert at_once == stateless


@pytest.mark.skipif(not SHARED.is_dir(), reason="the cases lie outside of the repository")
@pytest.mark.parametrize(
    "case",
    ["temp_shadows", "scs_off_leaks", "set_transaction", "unnamed_concurrent_index"],
)
async def test_a_case_that_was_seen_gives_the_same_tenant_in_all_ways(
    databases: list[str], tmp_path: Path, case: str
) -> None:
    await apply_in_three_ways(SHARED / case, databases, tmp_path)

    at_once, one_by_one, stateless = [await read_catalogue(dsn) for dsn in databases]
    assert at_once == one_by_one
    assert at_once == stateless


# -- index builds -----------------------------------------------------------------------------

TABLE = "create table public.big as select g as id from generate_series(1, 200000) as g"


@pytest.mark.parametrize(
    "build",
    [
        "create index concurrently big_id on public.big (id, (id + 1))",
        "set statement_timeout = 0;\ncreate index concurrently big_id on public.big (id, (id + 1))",
        "set lock_timeout = '9s'; create index concurrently on public.big (id, (id + 1))",
    ],
)
async def test_an_index_is_built_though_the_roles_time_out_is_shorter(
    empty_database: str, tmp_path: Path, build: str
) -> None:
    async with connect_postgres(empty_database) as connection:
        await apply_migrations(connection, read_canonical_set(write(tmp_path / "set", (TABLE,))))
        await connection.execute(
            "do $$ begin execute format('alter database %I set statement_timeout = %L',"
            " current_database(), '30ms'); end $$"
        )
    async with connect_postgres(empty_database) as connection:
        await connection.execute("set statement_timeout = '30ms'")
        await apply_migrations(
            connection, read_canonical_set(write(tmp_path / "set", (TABLE, build)))
        )

    assert await read_indexes(empty_database) == [True]


async def read_indexes(dsn: str) -> list[bool]:
    async with connect_postgres(dsn) as connection:
        rows = await connection.fetch(
            "select indisvalid from pg_index where indrelid = 'public.big'::regclass"
        )
    return [row["indisvalid"] for row in rows]


@pytest.mark.parametrize("name", ["", "big_id"])
async def test_what_interrupted_builds_left_is_gone_once_the_index_is_there(
    empty_database: str, tmp_path: Path, name: str
) -> None:
    unique = f"create unique index concurrently {name} on public.big (id)"
    files = ("create table public.big (id int)", unique)
    async with connect_postgres(empty_database) as connection:
        await apply_migrations(connection, read_canonical_set(write(tmp_path / "set", files[:1])))
        await connection.execute("insert into public.big values (1), (1)")
        canonical = read_canonical_set(write(tmp_path / "set", files))
        for _ in range(2):
            with pytest.raises(MigrationFailed, match="could not create unique index"):
                await apply_migrations(connection, canonical)
            assert await read_indexes(empty_database) == [False]
        await connection.execute("truncate public.big")
        await apply_migrations(connection, canonical)

    assert await read_indexes(empty_database) == [True]


# -- files that ask to run without a transaction ----------------------------------------------

PROCEDURE = """
create table public.batches (id int);
create procedure public.fill() language plpgsql as $$
begin
    for i in 1..3 loop
        insert into public.batches values (i);
        commit;
    end loop;
end
$$;
"""


@pytest.mark.parametrize("way", [connect_postgres, Stateless])
async def test_a_procedure_that_commits_runs_in_a_file_that_asks_for_no_transaction(
    empty_database: str, tmp_path: Path, way: Callable[[str], Any]
) -> None:
    files = (PROCEDURE, "-- pgworker: no-transaction\ncall public.fill();\ncall public.fill();")
    canonical = read_canonical_set(write(tmp_path / "set", files))
    if way is Stateless:
        await apply_migrations(Stateless(empty_database), canonical)
    else:
        async with connect_postgres(empty_database) as connection:
            await apply_migrations(connection, canonical)

    async with connect_postgres(empty_database) as connection:
        assert await connection.fetch("select count(*) as n from public.batches") == [{"n": 6}]


async def test_a_procedure_that_commits_is_refused_with_the_line_that_allows_it(
    empty_database: str, tmp_path: Path
) -> None:
    canonical = read_canonical_set(write(tmp_path / "set", (PROCEDURE, "call public.fill();")))
    async with connect_postgres(empty_database) as connection:
        with pytest.raises(MigrationFailed, match="-- pgworker: no-transaction"):
            await apply_migrations(connection, canonical)


async def test_a_statement_that_fails_without_a_transaction_is_named(
    empty_database: str, tmp_path: Path
) -> None:
    files = ("-- pgworker: no-transaction\ncreate table a (id int);\n\nselect 1 / 0;",)
    canonical = read_canonical_set(write(tmp_path / "set", files))
    async with connect_postgres(empty_database) as connection:
        with pytest.raises(MigrationFailed, match=r"x\.sql:4 \(statement 2\): division by zero"):
            await apply_migrations(connection, canonical)


def test_only_settings_may_stand_before_a_statement_that_must_run_alone() -> None:
    with pytest.raises(MigrationRefused, match="move it to a file of its own"):
        parse_migration("1_x.sql", "create table a (id int); create index concurrently on a (id)")


async def test_the_isolation_level_that_a_file_sets_holds_for_its_transaction(
    empty_database: str, tmp_path: Path
) -> None:
    sql = (
        "-- why\nset transaction isolation level serializable;\ncreate table t (level text);\n"
        "insert into t select current_setting('transaction_isolation');"
    )
    files = (sql,)
    async with connect_postgres(empty_database) as connection:
        await apply_migrations(connection, read_canonical_set(write(tmp_path / "set", files)))
        assert await connection.fetch("select level from t") == [{"level": "serializable"}]


async def test_a_file_that_fails_after_setting_its_isolation_level_names_the_right_line(
    empty_database: str, tmp_path: Path
) -> None:
    files = ("set transaction isolation level serializable;\ncreate table t (id int);\nselect x;",)
    async with connect_postgres(empty_database) as connection:
        with pytest.raises(MigrationFailed, match=r"x\.sql:3 \(statement 3\)"):
            await apply_migrations(connection, read_canonical_set(write(tmp_path / "set", files)))


# -- notices ----------------------------------------------------------------------------------


async def test_warnings_and_notices_of_a_file_are_reported(
    empty_database: str, tmp_path: Path
) -> None:
    files = (
        "do $$ begin raise warning 'password=hunter2 is weak'; raise notice 'two'; end $$",
        "create table if not exists t (id int); create table if not exists t (id int)",
    )
    async with connect_postgres(empty_database) as connection:
        report = await apply_migrations(
            connection, read_canonical_set(write(tmp_path / "set", files))
        )

    assert [tuple(notice) for notice in report.notices] == [
        ("20260101000000_x.sql", "warning", "password=[hidden] is weak"),
        ("20260101000000_x.sql", "notice", "two"),
        ("20260102000000_x.sql", "notice", 'relation "t" already exists, skipping'),
    ]
