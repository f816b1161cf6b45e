"""Promises of schema sync, against a real PostgreSQL."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from pgworker import schema_sync
from pgworker.errors import (
    BadConfiguration,
    MigrationFailed,
    MigrationRefused,
    OutcomeUnknown,
    Permanent,
    SmokeCheckFailed,
    Transient,
)
from pgworker.schema.apply import SyncReport, apply_migrations, read_history
from pgworker.schema.directory import read_canonical_set
from pgworker.schema.lint import lint
from pgworker.schema.migrations import Migration, history_is_complete
from pgworker.schema.smoke import (
    all_checks_pass,
    check_row_level_security,
    run_smoke_assertions,
)
from pgworker.schema_sync import ClientConfig, apply_latest_schema
from pgworker.tenants.connection import StatementError
from pgworker.tenants.postgres_connection import PostgresTenantConnection, connect_postgres
from tests.support.polling import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pgworker.tenants.connection import TenantConnection

EXAMPLE = Path(__file__).parents[2] / "supabase" / "migrations"
TIMEOUT = 60


@pytest.fixture
async def tenant(empty_database: str) -> AsyncIterator[PostgresTenantConnection]:
    async with connect_postgres(empty_database) as connection:
        yield connection


@dataclass
class Stateless:
    """Behaves as `database/query`: a new session for each call, no position in errors."""

    dsn: str

    async def fetch(self, sql: str) -> list[dict[str, Any]]:
        async with connect_postgres(self.dsn) as connection:
            try:
                return await connection.fetch(sql)
            except StatementError as error:
                raise StatementError(error.message, sqlstate=error.sqlstate) from error

    async def execute(self, sql: str) -> None:
        async with connect_postgres(self.dsn) as connection:
            try:
                await connection.execute(sql)
            except StatementError as error:
                raise StatementError(error.message, sqlstate=error.sqlstate) from error


@dataclass
class LosesTheAnswer:
    """A network that breaks at the script that holds `marker`, before or after it was run."""

    inner: TenantConnection
    marker: str
    after: bool

    async def fetch(self, sql: str) -> list[dict[str, Any]]:
        return await self.inner.fetch(sql)

    async def execute(self, sql: str) -> None:
        if self.marker not in sql or self.after:
            await self.inner.execute(sql)
        if self.marker in sql:
            raise OutcomeUnknown("the connection was lost")


def write(directory: Path, **files: str) -> Path:
    for version, sql in files.items():
        (directory / f"{version.removeprefix('v')}_x.sql").write_text(sql, encoding="utf-8")
    return directory


async def sync(connection: TenantConnection, directory: Path, **options: Any) -> SyncReport:
    async with asyncio.timeout(TIMEOUT):
        return await apply_migrations(connection, read_canonical_set(directory), **options)


async def versions(connection: TenantConnection) -> list[str]:
    return [row.version for row in await read_history(connection)]


async def exists(connection: TenantConnection, name: str) -> bool:
    rows = await connection.fetch(f"select to_regclass('{name}') is not null as is_there")
    return bool(rows[0]["is_there"])


# -- applying ---------------------------------------------------------------------------------


async def test_every_file_is_applied_once_and_recorded_as_the_cli_does(
    tenant: PostgresTenantConnection, tmp_path: Path
) -> None:
    write(
        tmp_path,
        v1="-- first\ncreate table a (id int); -- why\ninsert into a values (1);\n-- last",
        v2="create table b (id int)",
    )
    seen: list[str] = []

    async def on_applied(migration: Migration) -> None:
        seen.append(migration.version)

    first = await sync(tenant, tmp_path, on_applied=on_applied)
    second = await sync(tenant, tmp_path, on_applied=on_applied)

    assert first == SyncReport(applied=("1", "2"), head="2")
    assert second == SyncReport(applied=(), head="2")
    assert seen == ["1", "2"]
    rows = await tenant.fetch("select * from supabase_migrations.schema_migrations order by 1")
    assert rows == [
        {
            "version": "1",
            "name": "x",
            "statements": [
                "-- first\ncreate table a (id int)",
                "-- why\ninsert into a values (1)",
                "-- last",
            ],
        },
        {"version": "2", "name": "x", "statements": ["create table b (id int)"]},
    ]


async def test_the_data_api_is_notified_to_reload(
    tenant: PostgresTenantConnection, empty_database: str, tmp_path: Path
) -> None:
    notified: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(empty_database)
    try:
        await listener.add_listener("pgrst", lambda *event: notified.put_nowait(event[3]))
        await sync(tenant, write(tmp_path, v1="select 1"))

        async with asyncio.timeout(TIMEOUT):
            assert await notified.get() == "reload schema"
    finally:
        await listener.close()


async def test_reading_the_history_changes_nothing(tenant: PostgresTenantConnection) -> None:
    assert await read_history(tenant) == ()
    assert not await exists(tenant, "supabase_migrations.schema_migrations")


async def test_the_table_of_an_older_cli_is_used_and_completed(
    tenant: PostgresTenantConnection, tmp_path: Path
) -> None:
    await tenant.execute(
        "create schema supabase_migrations;"
        "create table supabase_migrations.schema_migrations (version text primary key);"
        "insert into supabase_migrations.schema_migrations values ('1');"
    )
    write(tmp_path, v1="create table a ()", v2="create table b ()")

    report = await sync(tenant, tmp_path)

    assert report.applied == ("2",)
    assert [row.statements for row in await read_history(tenant)] == [None, ("create table b ()",)]


async def test_a_sync_resumes_at_the_file_that_failed(
    tenant: PostgresTenantConnection, tmp_path: Path
) -> None:
    write(tmp_path, v1="create table a ()", v2="create table b (); select 1/0;", v3="select 3")

    with pytest.raises(MigrationFailed):
        await sync(tenant, tmp_path)
    assert await versions(tenant) == ["1"]
    assert not await exists(tenant, "b"), "the file was rolled back whole"

    write(tmp_path, v2="create table b (); select 1;")
    assert (await sync(tenant, tmp_path)).applied == ("2", "3")


@pytest.mark.parametrize(
    ("sql", "statement", "line", "sqlstate"),
    [
        ("create table t (\n    a int\n);\n\nselect nothing\nfrom t;", 2, 5, "42703"),
        ("select 1;\nselect 2;\n\nselec 3;", 3, 4, "42601"),
        ("select 'é';\n\nselect ü;", 2, 3, "42703"),
        ("select 1;\n\n\nselect 1 / 0;", 2, 4, "22012"),  # the server gives no position
        (
            (
                "create table t (a int unique);\ninsert into t values (1);\n-- twice\n"
                "insert into t values (1);"
            ),
            3,
            4,
            "23505",
        ),
        ("select 1;\ndo $$\nbegin\n    perform 1/0;\nend\n$$;", 2, 2, "22012"),
        ("select 1;\ndo $$\nbegin\n    assert false, 'no';\nend\n$$;", 2, 2, "P0004"),
        ("create function f() returns int language sql as $$\nselect x\n$$;", 1, 2, "42703"),
        (
            "create function f() returns int language plpgsql as $$\nbegin\nx y z;\nend $$;",
            1,
            3,
            "42601",
        ),
        ("select 1;\nselect (2", 2, 2, "42601"),
        ("select 1;\nselect 'open", 2, 2, "42601"),
    ],
)
async def test_a_failure_names_file_statement_line_and_the_servers_words(
    tenant: PostgresTenantConnection,
    tmp_path: Path,
    sql: str,
    statement: int,
    line: int,
    sqlstate: str,
) -> None:
    write(tmp_path, v1=sql)

    with pytest.raises(MigrationFailed) as caught:
        await sync(tenant, tmp_path)

    failed = caught.value
    assert (failed.file, failed.statement, failed.line) == ("1_x.sql", statement, line)
    assert failed.sqlstate == sqlstate
    assert "\n" not in str(failed)
    assert "commit" not in str(failed)
    assert await versions(tenant) == []


async def test_without_positions_the_failing_statement_is_still_found(
    empty_database: str, tmp_path: Path
) -> None:
    write(tmp_path, v1="select 1;\ncreate table t (a int);\n\n-- bad\nselect b\nfrom t;")

    with pytest.raises(MigrationFailed) as caught:
        await sync(Stateless(empty_database), tmp_path)

    assert (caught.value.statement, caught.value.line) == (3, 5)
    assert 'column "b" does not exist' in str(caught.value)


async def test_a_constraint_that_fails_at_commit_rolls_the_file_back(
    tenant: PostgresTenantConnection, tmp_path: Path
) -> None:
    write(
        tmp_path,
        v1="create table a (id int primary key, b int references a deferrable initially deferred);"
        "insert into a values (1, 2);",
    )

    with pytest.raises(MigrationFailed, match="foreign key") as caught:
        await sync(tenant, tmp_path)

    assert caught.value.statement is None
    assert await versions(tenant) == []


async def test_an_error_does_not_hold_the_statement(
    tenant: PostgresTenantConnection, tmp_path: Path
) -> None:
    write(tmp_path, v1="create role pgworker_test_x superpassword 'hunter2'")

    with pytest.raises(MigrationFailed) as caught:
        await sync(tenant, tmp_path)

    assert "hunter2" not in str(caught.value)


async def test_a_setting_of_a_file_does_not_reach_the_next_one(
    tenant: PostgresTenantConnection, tmp_path: Path
) -> None:
    await tenant.execute("create schema elsewhere")
    write(
        tmp_path,
        v1="set search_path = elsewhere; set role pg_monitor;"
        "select set_config('statement_timeout', '7s', false);",
        v2="create table here as select current_setting('role') as role,"
        " current_setting('statement_timeout') as timeout",
    )

    assert (await sync(tenant, tmp_path)).applied == ("1", "2")

    rows = await tenant.fetch("select * from public.here")
    assert rows == [{"role": "none", "timeout": "0"}]


async def test_the_role_that_the_connection_came_with_is_kept(
    tenant: PostgresTenantConnection, empty_database: str, tmp_path: Path
) -> None:
    await tenant.execute(
        "do $$ begin execute format('grant create on database %I to pg_monitor',"
        " current_database()); end $$; grant create on schema public to pg_monitor;"
        "set role pg_monitor"
    )
    write(tmp_path, v1="reset role; create table a ()", v2="create table b ()")

    await sync(tenant, tmp_path)

    owners = await tenant.fetch(
        "select tablename, tableowner from pg_tables where schemaname = 'public' order by 1"
    )
    assert owners[1] == {"tablename": "b", "tableowner": "pg_monitor"}


async def test_two_syncs_at_once_apply_each_file_once(empty_database: str, tmp_path: Path) -> None:
    write(
        tmp_path,
        v1="create table a (id int generated always as identity); insert into a default values;",
        v2="insert into a default values; select pg_sleep(0.05);",
        v3="insert into a default values;",
    )

    async def one() -> SyncReport:
        async with connect_postgres(empty_database) as connection:
            return await sync(connection, tmp_path)

    reports = await asyncio.gather(*(one() for _ in range(4)))

    assert sorted(v for report in reports for v in report.applied) == ["1", "2", "3"]
    assert {report.head for report in reports} == {"3"}
    async with connect_postgres(empty_database) as connection:
        assert await connection.fetch("select count(*)::int as n from a") == [{"n": 3}]


async def test_a_set_that_does_not_fit_the_history_changes_nothing(
    tenant: PostgresTenantConnection, tmp_path: Path
) -> None:
    write(tmp_path, v2="create table b ()")
    await sync(tenant, tmp_path)
    write(tmp_path, v1="create table a ()", v3="create table c ()")

    with pytest.raises(MigrationRefused, match=r"1_x\.sql.*--include-all"):
        await sync(tenant, tmp_path)
    assert await versions(tenant) == ["2"]

    assert (await sync(tenant, tmp_path, include_all=True)).applied == ("1", "3")

    write(tmp_path, v2="create table b (id int)")
    with pytest.raises(MigrationRefused, match=r"changed.*2_x\.sql"):
        await sync(tenant, tmp_path)

    (tmp_path / "2_x.sql").unlink()
    with pytest.raises(MigrationRefused, match=r"without a file in .*: 2"):
        await sync(tenant, tmp_path)


# -- outside of a transaction -----------------------------------------------------------------


async def test_a_concurrent_index_is_built_and_recorded(
    tenant: PostgresTenantConnection, tmp_path: Path
) -> None:
    write(
        tmp_path,
        v1="create table t (a int)",
        v2="-- alone\ncreate index concurrently if not exists i on t (a); -- done",
    )

    assert (await sync(tenant, tmp_path)).applied == ("1", "2")
    assert await exists(tenant, "i")


async def test_an_invalid_index_is_built_again(
    tenant: PostgresTenantConnection, tmp_path: Path
) -> None:
    write(
        tmp_path,
        v1="create table t (a int); insert into t values (1), (1);",
        v2="create unique index concurrently if not exists i on t (a)",
    )

    with pytest.raises(MigrationFailed, match="could not create unique index") as caught:
        await sync(tenant, tmp_path)
    assert (caught.value.statement, caught.value.line) == (1, 1)
    assert await exists(tenant, "i"), "the server left an invalid one"

    await tenant.execute("delete from t")
    assert (await sync(tenant, tmp_path)).applied == ("2",)
    assert await tenant.fetch(
        "select indisvalid from pg_index where indexrelid = 'i'::regclass"
    ) == [{"indisvalid": True}]


async def test_an_index_that_another_session_is_building_is_left_alone(
    tenant: PostgresTenantConnection, empty_database: str, tmp_path: Path
) -> None:
    index = "create index concurrently if not exists i on t (a)"
    write(tmp_path, v1="select 1", v2=index)
    await tenant.execute("create table t (a int)")
    writer = await asyncpg.connect(empty_database)
    builder = await asyncpg.connect(empty_database)
    try:
        await writer.execute("begin; insert into t values (1)")  # the build waits for its end
        build = asyncio.create_task(builder.execute(index))
        await eventually(lambda: exists(tenant, "i"))

        with pytest.raises(Transient, match=r"another session is building public\.i"):
            await sync(tenant, tmp_path)

        await writer.execute("commit")
        async with asyncio.timeout(TIMEOUT):
            await build
    finally:
        await writer.close()
        await builder.close()
    assert (await sync(tenant, tmp_path)).applied == ("2",)


# -- lost connections, busy servers -----------------------------------------------------------


async def test_a_lost_answer_is_looked_up_in_the_history(
    tenant: PostgresTenantConnection, tmp_path: Path
) -> None:
    write(tmp_path, v1="create table a ()", v2="create table b ()")
    lossy = LosesTheAnswer(tenant, marker="create table b", after=True)

    assert (await sync(lossy, tmp_path)).applied == ("1", "2")


async def test_a_lost_script_is_transient(tenant: PostgresTenantConnection, tmp_path: Path) -> None:
    write(tmp_path, v1="create table a ()", v2="create table b ()")
    lossy = LosesTheAnswer(tenant, marker="create table b", after=False)

    with pytest.raises(Transient, match=r"2_x\.sql may not have been applied"):
        await sync(lossy, tmp_path)

    assert (await sync(tenant, tmp_path)).applied == ("2",)


async def test_a_connection_cut_in_the_middle_leaves_nothing_half_written(
    empty_database: str, tmp_path: Path
) -> None:
    write(
        tmp_path,
        v1="create table a ()",
        v2="create table b (); select pg_terminate_backend(pg_backend_pid());",
    )

    with pytest.raises(Transient):
        async with connect_postgres(empty_database) as connection:
            await sync(connection, tmp_path)

    async with connect_postgres(empty_database) as connection:
        assert await versions(connection) == ["1"]
        assert not await exists(connection, "b")


async def test_a_timeout_of_ours_leaves_nothing_half_written(
    empty_database: str, tmp_path: Path
) -> None:
    write(tmp_path, v1="create table a (); select pg_sleep(60);")

    # The statements before it must not run into the time-out, not even on a busy machine.
    async with connect_postgres(empty_database, command_timeout=timedelta(seconds=3)) as connection:
        with pytest.raises(Transient, match="may not have been applied"):
            await sync(connection, tmp_path)

    async with connect_postgres(empty_database) as connection:
        assert await versions(connection) == []
        assert not await exists(connection, "a")


async def test_a_lock_held_by_another_session_is_transient(
    tenant: PostgresTenantConnection, empty_database: str, tmp_path: Path
) -> None:
    write(tmp_path, v1="set local lock_timeout = '50ms'; alter table t add column b int;")
    await tenant.execute("create table t (a int)")
    other = await asyncpg.connect(empty_database)
    try:
        await other.execute("begin; lock table t")

        with pytest.raises(Transient, match="55P03"):
            await sync(tenant, tmp_path)
    finally:
        await other.close()

    assert (await sync(tenant, tmp_path)).applied == ("1",)


# -- connecting -------------------------------------------------------------------------------


async def test_an_unreachable_server_is_transient_and_named_without_the_password() -> None:
    with pytest.raises(Transient, match=r"127\.0\.0\.1:1 can't be reached") as caught:
        async with connect_postgres("postgresql://u:hunter2@127.0.0.1:1/d"):
            pass

    assert "hunter2" not in str(caught.value)


async def test_a_wrong_password_is_permanent_and_not_shown(
    tenant: PostgresTenantConnection, empty_database: str
) -> None:
    wrong = re.sub(r":[^:@/]*@", ":hunter2@", empty_database)

    with pytest.raises(Permanent, match="28P01") as caught:
        async with connect_postgres(wrong):
            pass

    assert "hunter2" not in str(caught.value)


async def test_a_missing_database_is_permanent(empty_database: str) -> None:
    with pytest.raises(Permanent, match="3D000"):
        async with connect_postgres(empty_database.rpartition("/")[0] + "/no_such_database"):
            pass


async def test_an_unusable_dsn_is_permanent_and_not_shown() -> None:
    with pytest.raises(Permanent, match="DSN can't be used") as caught:
        async with connect_postgres("mysql://u:hunter2@h/d"):
            pass

    assert "hunter2" not in str(caught.value)


async def test_values_come_back_as_json_carries_them(tenant: PostgresTenantConnection) -> None:
    rows = await tenant.fetch(
        "select 1 as i, null as n, '{\"a\": [1]}'::jsonb as j, array['x', null] as t, 1.50 as d,"
        " '2026-01-02'::date as day, '\\xff'::bytea as b,"
        " '00000000-0000-0000-0000-000000000001'::uuid as u"
    )

    assert rows == [
        {
            "i": 1,
            "n": None,
            "j": {"a": [1]},
            "t": ["x", None],
            "d": "1.50",
            "day": "2026-01-02",
            "b": "\\xff",
            "u": "00000000-0000-0000-0000-000000000001",
        }
    ]


# -- the public helper ------------------------------------------------------------------------


async def test_the_helper_takes_a_dsn_a_connection_or_a_mapping(
    empty_database: str, tenant: PostgresTenantConnection, tmp_path: Path
) -> None:
    write(tmp_path, v1="select 1")
    first = await apply_latest_schema(ClientConfig(dsn=empty_database, migrations_dir=tmp_path))
    write(tmp_path, v2="select 2")
    second = await apply_latest_schema(ClientConfig(connection=tenant, migrations_dir=tmp_path))
    write(tmp_path, v3="select 3")
    third = await apply_latest_schema({"dsn": empty_database, "migrations_dir": str(tmp_path)})

    assert [report.applied for report in (first, second, third)] == [("1",), ("2",), ("3",)]


async def test_the_example_in_the_docstring_runs(empty_database: str) -> None:
    docstring = schema_sync.__doc__
    assert docstring is not None
    code = docstring.partition("```python\n")[2].partition("```")[0]
    code = code.replace("postgresql://owner@localhost/acme", empty_database)
    code = code.replace("supabase/migrations", str(EXAMPLE))
    async with connect_postgres(empty_database) as connection:
        await create_roles(connection)
    lines = "".join(f"    {line}\n" for line in code.splitlines())
    scope: dict[str, Any] = {}
    exec(f"async def example():\n{lines}\n    return report", scope)

    report = await scope["example"]()

    assert report.head == read_canonical_set(EXAMPLE).head


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"migrations_dir": EXAMPLE}, "either a dsn or a connection"),
        ({"dsn": "x"}, "lacks migrations_dir"),
        ({"dsn": "x", "migrations_dir": EXAMPLE, "dns": 1}, "unknown keys: dns"),
    ],
)
async def test_an_incomplete_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfiguration, match=message):
        await apply_latest_schema(config)


def test_a_configuration_does_not_show_its_dsn() -> None:
    config = ClientConfig(dsn="postgresql://u:hunter2@h/d", migrations_dir=EXAMPLE)

    assert "hunter2" not in repr(config)


# -- the example set, and smoke assertions ----------------------------------------------------


async def create_roles(connection: TenantConnection) -> None:
    """The roles of Supabase. They belong to the server; another test may be creating them."""
    for role in ("anon", "authenticated", "service_role"):
        await connection.execute(
            f"do $$ begin create role {role} nologin;"
            " exception when duplicate_object or unique_violation then null; end $$"
        )


async def test_the_example_set_applies_passes_its_assertions_and_is_clean(
    tenant: PostgresTenantConnection,
) -> None:
    await create_roles(tenant)
    canonical = read_canonical_set(EXAMPLE)

    await sync(tenant, EXAMPLE)

    assert history_is_complete(canonical, await read_history(tenant))
    assert lint(canonical) == ()
    assert canonical.notices == ()
    await check_row_level_security(tenant)
    assert len(await run_smoke_assertions(tenant, canonical.smoke_directory)) == 3


async def test_the_example_set_needs_no_more_than_the_owner_of_the_database(
    tenant: PostgresTenantConnection, empty_database: str
) -> None:
    await create_roles(tenant)
    owner = f"owner_of_{empty_database.rpartition('/')[2]}"
    database = empty_database.rpartition("/")[2]
    await tenant.execute(f'create role "{owner}"')
    await tenant.execute(f'alter database "{database}" owner to "{owner}"; set role "{owner}"')
    try:
        await sync(tenant, EXAMPLE)
        await run_smoke_assertions(tenant, EXAMPLE / "smoke")

        (mine,) = await tenant.fetch(
            "select bool_and(tableowner = current_user) as are_mine from pg_tables"
            " where schemaname = 'public'"
        )
        assert mine == {"are_mine": True}
    finally:
        await tenant.execute(
            f'reset role; alter database "{database}" owner to current_user;'
            f'drop owned by "{owner}"; drop role "{owner}"'
        )


async def test_the_example_set_applies_without_a_session(empty_database: str) -> None:
    stateless = Stateless(empty_database)
    await create_roles(stateless)

    await sync(stateless, EXAMPLE)

    await run_smoke_assertions(stateless, EXAMPLE / "smoke")
    await check_row_level_security(stateless)


async def test_a_table_without_row_level_security_is_named(
    tenant: PostgresTenantConnection,
) -> None:
    await tenant.execute("create table open_one (); create table p (a int) partition by list (a);")

    with pytest.raises(SmokeCheckFailed, match=r"public\.open_one, public\.p;"):
        await check_row_level_security(tenant)


async def assertion(connection: TenantConnection, directory: Path, sql: str) -> None:
    (directory / "a.sql").write_text(sql, encoding="utf-8")
    await run_smoke_assertions(connection, directory)


@pytest.mark.parametrize(
    "sql",
    [
        "select 1 where false",
        "select true, 'b' as a from generate_series(1, 3);",
        "-- why\nselect 1 = 1 -- yes\n",
        "with x as (select true as a) table x",
    ],
)
async def test_an_assertion_holds_when_no_row_or_only_true_rows_come_back(
    tenant: PostgresTenantConnection, tmp_path: Path, sql: str
) -> None:
    await assertion(tenant, tmp_path, sql)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select false as z, 7 as a", r'smoke/a\.sql: row 1 is not true: {"z":false,"a":7}$'),
        ("select n < 2 from generate_series(1, 3) as n", "row 2 is not true"),
        ("select null::boolean", "row 1 is not true"),
        ("select 'true'", "row 1 is not true"),
        ("select 1", "row 1 is not true"),
        ("select nothing", r"smoke/a\.sql: column .* does not exist \[42703\]"),
        ("create table x ()", r"smoke/a\.sql"),
        ("with x as (insert into t values (1) returning true) table x", r"\[25006\]"),
        ("select true; select true", "exactly one query"),
        ("-- nothing", "exactly one query"),
    ],
)
async def test_an_assertion_that_does_not_hold_names_its_file_and_row(
    tenant: PostgresTenantConnection, tmp_path: Path, sql: str, message: str
) -> None:
    await tenant.execute("create table t (a int)")

    with pytest.raises(SmokeCheckFailed, match=message):
        await assertion(tenant, tmp_path, sql)

    assert await tenant.fetch("select * from t") == []


class Calls:
    """A connection that records what is sent over it."""

    def __init__(self, connection: TenantConnection) -> None:
        self._connection = connection
        self.scripts: list[str] = []

    async def fetch(self, sql: str) -> list[dict[str, Any]]:
        return await self._connection.fetch(sql)

    async def execute(self, sql: str) -> None:
        self.scripts.append(sql)
        await self._connection.execute(sql)


async def test_a_complete_schema_is_checked_with_one_call(
    tenant: PostgresTenantConnection,
) -> None:
    await create_roles(tenant)
    await sync(tenant, EXAMPLE)
    calls = Calls(tenant)

    assert await all_checks_pass(calls, read_canonical_set(EXAMPLE))

    (script,) = calls.scripts
    assert script.count("begin read only") == 5


@pytest.mark.parametrize(
    "damage",
    [
        "drop schema supabase_migrations cascade",
        "delete from supabase_migrations.schema_migrations where version = '20260101000000'",
        "insert into supabase_migrations.schema_migrations (version) values ('20260101000001')",
        "create table public.open_one ()",
        "delete from app_settings",
    ],
    ids=["no history", "a version less", "a version more", "an open table", "an assertion"],
)
async def test_a_schema_that_fails_a_check_is_never_taken_for_complete(
    tenant: PostgresTenantConnection, damage: str
) -> None:
    await create_roles(tenant)
    await sync(tenant, EXAMPLE)
    await tenant.execute(damage)

    assert not await all_checks_pass(tenant, read_canonical_set(EXAMPLE))

    assert await tenant.fetch("select 1 as answered") == [{"answered": 1}]


async def test_a_check_that_can_not_run_now_does_not_pass(empty_database: str) -> None:
    async with connect_postgres(empty_database) as tenant:
        (row,) = await tenant.fetch("select pg_backend_pid() as pid")
        async with connect_postgres(empty_database) as admin:
            await admin.execute(f"select pg_terminate_backend({row['pid']}, 10000)")

        assert not await all_checks_pass(tenant, read_canonical_set(EXAMPLE))


@pytest.mark.parametrize(
    ("sql", "message"),
    [("select false", "row 1 is not true"), ("select nothing", "does not exist")],
)
async def test_of_several_assertions_the_one_that_does_not_hold_is_named(
    tenant: PostgresTenantConnection, tmp_path: Path, sql: str, message: str
) -> None:
    for name, text in {"a": "select true", "b": sql, "c": "select true"}.items():
        (tmp_path / f"{name}.sql").write_text(text)

    with pytest.raises(SmokeCheckFailed, match=rf"smoke/b\.sql: .*{message}"):
        await run_smoke_assertions(tenant, tmp_path)

    assert await tenant.fetch("select 1 as answered") == [{"answered": 1}]


async def test_a_missing_directory_has_no_assertions(
    tenant: PostgresTenantConnection, tmp_path: Path
) -> None:
    assert await run_smoke_assertions(tenant, tmp_path / "smoke") == ()
