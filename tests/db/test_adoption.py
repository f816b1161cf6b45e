"""The platform's own `clients`: what stands in the way is named before anything is changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from pgworker.db.adoption.facts import (
    Column,
    Facts,
    Security,
    StatusCheck,
    Surroundings,
    Table,
    UniqueIndex,
)
from pgworker.db.adoption.objections import COLUMNS, find_objections
from pgworker.db.adoption.plan import make_plan
from pgworker.db.migrate import migrate, read_own_files, read_plan, read_state
from pgworker.db.pool import connected
from pgworker.errors import BadConfiguration, UnusableTable
from pgworker.models import ClientStatus
from tests.support.jobs import jobs_in

ALL = tuple(file.name for file in read_own_files())
BARE = "create table clients (id uuid primary key default gen_random_uuid(), name text not null)"
AsRole = Callable[..., AbstractAsyncContextManager[asyncpg.Connection]]


@pytest.fixture
async def connection(empty_database: str) -> AsyncIterator[asyncpg.Connection]:
    async with connected(empty_database) as opened:
        yield opened


@pytest.fixture
async def as_role(empty_database: str) -> AsyncIterator[AsRole]:
    """Make roles without rights, and be one; the superuser may do something for it first."""
    made: list[str] = []

    @asynccontextmanager
    async def become(*prepared: str) -> AsyncIterator[asyncpg.Connection]:
        async with connected(empty_database) as connection:
            role = f"app_{connection.get_server_pid()}"
            made.append(role)
            await connection.execute(f"create role {role}; revoke all on schema public from public")
            for statement in prepared:
                await connection.execute(statement.format(role=role))
            await connection.execute(f"set role {role}")
            yield connection

    yield become
    async with connected(empty_database) as connection:
        for role in made:
            await connection.execute(f"drop owned by {role} cascade; drop role {role}")


async def objections(connection: asyncpg.Connection) -> list[str]:
    return [str(each) for each in (await read_plan(connection)).objections]


async def catalogue(connection: asyncpg.Connection) -> list[Any]:
    """Return everything that a plan, or a refused migration, could have changed."""
    return [
        await connection.fetch("select oid, xmin from pg_class order by oid"),
        await connection.fetch("select oid, xmin from pg_namespace order by oid"),
        await connection.fetch("select attrelid, attnum, xmin from pg_attribute order by 1, 2"),
        await connection.fetch("select oid, xmin from pg_trigger order by oid"),
    ]


async def one_job_lives(connection: asyncpg.Connection, dsn: str) -> None:
    """Migrate, and take a client through its job."""
    assert await migrate(connection) == ALL
    await connection.execute("insert into clients (name, auto_provision) values ('Acme', true)")
    async with jobs_in(dsn) as jobs:
        job = await jobs.claim_one()
        assert await jobs.advance(job) == set()
        assert await jobs.complete(job) == set()
        assert (await jobs.fetch_client(job.id))["provisioning_status"] == "ready"


# -- everything at once -----------------------------------------------------------------------


async def test_everything_that_stands_in_the_way_is_named_at_once_and_nothing_is_changed(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        "create unlogged table clients ("
        " id uuid not null, name text,"
        " auto_provision text,"
        " provisioning_status varchar(10) check (provisioning_status in ('new', 'ready')),"
        " provisioning_error text not null default '',"
        " project_ref text generated always as ('x') stored,"
        " schema_version integer,"
        " unique (id) deferrable,"
        " unique (provisioning_status));"
        "create table vip () inherits (clients);"
        "create rule swallow as on update to clients do instead nothing"
    )
    before = await catalogue(connection)

    with pytest.raises(UnusableTable) as refusal:
        await migrate(connection)

    lines = str(refusal.value).splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "public.clients is unlogged",
        (
            "public.clients has tables that inherit from it (vip), and its key says nothing of"
            " their rows"
        ),
        "rule swallow of clients rewrites its inserts or updates",
        (
            "clients.id must be a uuid primary key (or unique): clients_id_key is deferrable, and"
            " no foreign key can refer to it"
        ),
        "column clients.auto_provision is of type text",
        "column clients.provisioning_status holds 10 characters",
        "column clients.provisioning_error can't be null",
        "column clients.schema_version is of type int4",
        "column clients.project_ref is a generated column",
        (
            "check clients_provisioning_status_check of clients refuses provisioning_status "
            + ", ".join(status for status in ClientStatus if status != "ready")
        ),
        (
            "unique index clients_provisioning_status_key of clients allows one client for each"
            " provisioning_status"
        ),
    ]
    for line in lines:
        assert "; pgworker needs " in line
        assert line.endswith(")")
    assert await catalogue(connection) == before
    assert await objections(connection) == lines


@pytest.mark.parametrize(
    ("ddl", "mended"),
    [
        (
            "create table clients (id uuid not null, name text, unique (id) deferrable)",
            "create unique index concurrently clients_id on public.clients (id)",
        ),
        (
            "create table clients (id uuid, name text)",
            "create unique index concurrently clients_id on public.clients (id)",
        ),
        ("create unlogged table clients (id uuid primary key)", ""),
        (
            (
                "create table clients (id uuid primary key, n int,"
                " project_url text generated always as (n || '') stored)"
            ),
            "",
        ),
        (
            (
                "create table clients (id uuid primary key,"
                " provisioning_completed_at timestamptz not null default 'epoch')"
            ),
            "",
        ),
        (
            (
                "create table clients (id uuid primary key, provisioning_status text"
                " check (provisioning_status <> 'failed'))"
            ),
            "",
        ),
        (
            (
                "create table clients (id uuid primary key);"
                "create rule r as on insert to clients do also nothing"
            ),
            "",
        ),
        ("create table clients (id uuid primary key, schema_version varchar(8))", ""),
        ("create type c as (id uuid, name text); create table clients of c (primary key (id))", ""),
    ],
)
async def test_the_advice_is_the_very_sql_that_helps(
    connection: asyncpg.Connection, empty_database: str, ddl: str, mended: str
) -> None:
    await connection.execute(ddl)
    (objection,) = (await read_plan(connection)).objections
    if mended:
        assert objection.advice == mended

    await connection.execute(objection.advice)

    assert await objections(connection) == []
    await connection.execute("alter table clients alter column id set default gen_random_uuid()")
    await one_job_lives(connection, empty_database)


@pytest.mark.parametrize(
    ("ddl", "kind"),
    [
        ("create view clients as select 1 as id", "a view"),
        ("create materialized view clients as select 1 as id", "a materialized view"),
        ("create sequence clients", "a sequence"),
        ("create type clients as (id uuid)", "a composite type"),
        (
            (
                "create foreign data wrapper w; create server s foreign data wrapper w;"
                "create foreign table clients (id uuid) server s"
            ),
            "a foreign table",
        ),
    ],
)
async def test_what_is_not_a_table_is_named_for_what_it_is(
    connection: asyncpg.Connection, ddl: str, kind: str
) -> None:
    await connection.execute(ddl)

    assert await objections(connection) == [
        (
            f"public.clients is not a table: it is {kind}; pgworker needs a table of that name "
            "(rename it, or build a bridge table: docs/adopting.md)"
        )
    ]


async def test_a_table_of_ours_that_pgworker_has_not_made_is_not_overwritten(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute("create table client_provisioning_jobs (id bigint)")

    (line,) = await objections(connection)

    assert line.startswith("public.client_provisioning_jobs is there already, and pgworker has not")


# -- partitions -------------------------------------------------------------------------------


async def test_partitions_by_id_are_adopted_and_the_plan_says_what_they_cost(
    connection: asyncpg.Connection, empty_database: str
) -> None:
    """PostgreSQL 14 to 18 alike: a unique key must hold the partition key."""
    await connection.execute(
        "create table clients (id uuid primary key default gen_random_uuid(), name text)"
        " partition by hash (id);"
        "create table clients_0 partition of clients for values with (modulus 2, remainder 0);"
        "create table clients_1 partition of clients for values with (modulus 2, remainder 1)"
    )
    plan = await read_plan(connection)
    assert plan.objections == ()
    assert plan.changes[-1].lock == "share"
    assert "can't build it concurrently on a partitioned table" in plan.changes[-1].note
    assert any("inserted into a partition" in notice for notice in plan.notices)

    await one_job_lives(connection, empty_database)


async def test_partitions_by_anything_else_are_refused(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "create table clients (id uuid, name text, region text, primary key (id, region))"
        " partition by list (region)"
    )

    (line,) = await objections(connection)

    assert "partitioned by LIST (region), which allows no key on id alone" in line
    assert "bridge table: docs/adopting.md" in line


async def test_a_partition_of_another_table_is_refused(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "create table parties (id uuid primary key, name text) partition by hash (id);"
        "create table clients partition of parties for values with (modulus 1, remainder 0)"
    )

    (line,) = await objections(connection)

    assert line.startswith("public.clients is a partition of another table")


async def test_a_table_that_inherits_from_another_is_adopted(
    connection: asyncpg.Connection, empty_database: str
) -> None:
    await connection.execute(
        "create table parties (id uuid default gen_random_uuid(), name text);"
        "create table clients (primary key (id)) inherits (parties)"
    )

    await one_job_lives(connection, empty_database)


async def test_generated_names_are_read(
    connection: asyncpg.Connection, empty_database: str
) -> None:
    await connection.execute(
        "create table clients (id uuid primary key default gen_random_uuid(), given text,"
        " name text not null generated always as (coalesce(given, '?')) stored)"
    )
    await migrate(connection)
    await connection.execute("insert into clients (given, auto_provision) values ('Acme', true)")

    async with jobs_in(empty_database) as jobs:
        assert await jobs.complete(await jobs.claim_one()) == set()
        assert [row.client_name for row in await jobs.status.list_clients()] == ["Acme"]


async def test_what_a_deferred_trigger_still_has_to_do_is_done_before_the_table_is_altered(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        "create table clients (id uuid primary key, name text);"
        "insert into clients values (gen_random_uuid(), null);"
        "create function f() returns trigger language plpgsql as 'begin return null; end';"
        "create constraint trigger t after update on clients"
        " deferrable initially deferred for each row execute function f()"
    )

    assert await migrate(connection) == ALL


# -- rights -----------------------------------------------------------------------------------


async def test_a_role_without_the_right_to_create_schemas_uses_one_that_is_prepared_for_it(
    as_role: AsRole,
) -> None:
    async with as_role(
        "create schema pgworker authorization {role}",
        "grant usage, create on schema public to {role}",
    ) as connection:
        assert await migrate(connection) == ALL
        await connection.execute("insert into clients (name, auto_provision) values ('A', true)")
        assert await connection.fetchval("select id from pgworker.claim('w', 1, '30 s')") == 1
        # And again, when something has changed.
        await connection.execute(
            "update pgworker.schema_history set checksum = 'older'"
            " where name = 'functions/pause.sql'"
        )
        assert await migrate(connection) == ("functions/pause.sql",)


async def test_a_role_that_does_not_own_the_table_needs_no_more_than_a_few_privileges(
    as_role: AsRole, connection: asyncpg.Connection
) -> None:
    await migrate(connection)
    await connection.execute(
        "drop schema pgworker cascade; drop table client_provisioning_jobs cascade;"
        "alter table clients disable row level security"
    )
    async with as_role(
        "create schema pgworker authorization {role}",
        "grant usage, create on schema public to {role}",
        "grant select, insert, update, references, trigger on clients to {role}",
    ) as own:
        plan = await read_plan(own)
        assert [change.lock for change in plan.changes] == ["share row exclusive"] * 3
        assert await migrate(own) == ALL
        await own.execute("insert into clients (name, auto_provision) values ('A', true)")
        assert await own.fetchval("select id from pgworker.claim('w', 1, '30 s')") == 1


async def test_rights_that_are_missing_are_named_with_the_grants_all_at_once(
    as_role: AsRole,
) -> None:
    async with as_role(BARE, "grant usage on schema public to {role}") as connection:
        lines = await objections(connection)
        role = await connection.fetchval("select current_user")
        with pytest.raises(BadConfiguration):
            await migrate(connection)

    assert len(lines) == 3
    assert f"role {role} can't change it" in lines[0]
    assert "alter table public.clients add column auto_provision boolean not null" in lines[0]
    assert (
        f'grant select, insert, update, references, trigger on public.clients to "{role}"'
        in (lines[1])
    )
    assert "permission denied" in lines[2]
    assert f'create schema pgworker authorization "{role}"' in lines[2]
    assert f'grant usage, create on schema public to "{role}"' in lines[2]


# -- row level security -----------------------------------------------------------------------

OWNED = (
    "grant create on database {database} to {{role}}",
    "grant usage, create on schema public to {{role}}",
    "create table clients (id uuid primary key default gen_random_uuid(), name text not null)",
    "alter table clients owner to {{role}}",
    "alter table clients enable row level security",
    "alter table clients force row level security",
)


def owned(dsn: str, *more: str) -> list[str]:
    database = dsn.rpartition("/")[2].partition("?")[0]
    return [statement.format(database=f'"{database}"') for statement in OWNED] + list(more)


async def test_forced_row_level_security_is_found_before_anything_is_changed(
    as_role: AsRole, empty_database: str
) -> None:
    async with as_role(*owned(empty_database)) as connection:
        role = await connection.fetchval("select current_user")
        (objection,) = (await read_plan(connection)).objections
        with pytest.raises(BadConfiguration):
            await migrate(connection)
        assert str(objection) == (
            f"row level security of public.clients applies to role {role}, though it owns the "
            "table (force row level security), and no policy lets it select, insert, update; "
            "pgworker needs all rows (create policy pgworker on public.clients to "
            f'"{role}" using (true) with check (true))'
        )

        await connection.execute(objection.advice)

        assert await migrate(connection) == ALL
        await connection.execute("insert into clients (name, auto_provision) values ('A', true)")
        assert await connection.fetchval("select id from pgworker.claim('w', 1, '30 s')") == 1


async def test_only_the_commands_without_a_policy_are_named(
    as_role: AsRole, empty_database: str
) -> None:
    prepared = owned(empty_database, "create policy see on clients for select using (true)")
    async with as_role(*prepared) as connection:
        (line,) = await objections(connection)

    assert "no policy lets it insert, update;" in line


async def test_policies_that_may_hide_rows_are_a_note(as_role: AsRole, empty_database: str) -> None:
    prepared = owned(empty_database, "create policy sees_some on clients using (name <> 'hidden')")
    async with as_role(*prepared) as connection:
        plan = await read_plan(connection)

    assert plan.objections == ()
    (notice,) = [each for each in plan.notices if "row level security" in each]
    assert "its policies may hide rows from it" in notice
    assert "bypassrls" in notice


async def test_whoever_bypasses_row_level_security_is_not_bothered(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        f"{BARE}; alter table clients enable row level security;"
        "alter table clients force row level security"
    )

    assert await objections(connection) == []


# -- the plan ---------------------------------------------------------------------------------


async def test_the_plan_of_an_empty_database_changes_nothing(
    connection: asyncpg.Connection,
) -> None:
    before = await catalogue(connection)
    plan = await read_plan(connection)

    assert plan.files == ALL
    assert [change.change for change in plan.changes] == ["create table public.clients"]
    assert (plan.objections, plan.notices) == ((), ())
    assert await catalogue(connection) == before


async def test_the_plan_names_each_change_on_clients_and_its_lock(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute("create table clients (id uuid primary key)")
    before = await catalogue(connection)

    plan = await read_plan(connection)

    assert await catalogue(connection) == before
    assert [(change.lock, change.change) for change in plan.changes] == [
        ("access exclusive", "add column name text"),
        *(
            ("access exclusive", f"add column {name} {COLUMNS[name].definition}")
            for name in list(COLUMNS)[2:]
        ),
        ("row exclusive", "update: name = id where it is null"),
        ("access exclusive", "alter column name set not null"),
        ("share update exclusive", "set (fillfactor = 40)"),
        ("share row exclusive", "foreign keys of pgworker's tables refer to id"),
        ("share row exclusive", "trigger pgworker_client_queued (before insert)"),
        ("share row exclusive", "trigger pgworker_clients_inserted (after insert)"),
        ("share", "create index clients_by_age"),
    ]


@pytest.mark.parametrize("ddl", ["create table clients (id uuid primary key)", BARE])
async def test_what_the_plan_says_is_what_is_done(connection: asyncpg.Connection, ddl: str) -> None:
    await connection.execute(ddl)
    planned = {
        change.change.split()[2]
        for change in (await read_plan(connection)).changes
        if change.change.startswith("add column")
    }
    columns = "select attname from pg_attribute where attrelid = 'clients'::regclass and attnum > 0"
    before = {row["attname"] for row in await connection.fetch(columns)}

    await migrate(connection)

    after = {row["attname"] for row in await connection.fetch(columns)}
    assert after - before == planned
    plan = await read_plan(connection)
    assert (plan.files, plan.changes, plan.objections) == ((), (), ())
    assert (await read_state(connection)).is_current


async def test_columns_that_are_added_are_those_of_a_table_of_ours(
    connection: asyncpg.Connection, empty_database: str
) -> None:
    shape = (
        "select attname, format_type(atttypid, atttypmod), attnotnull,"
        " pg_get_expr(adbin, adrelid) as value"
        " from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum"
        " where attrelid = 'clients'::regclass and attnum > 0 and attname <> 'id' order by attname"
    )
    await connection.execute("create table clients (id uuid primary key)")
    await migrate(connection)
    adopted = await connection.fetch(shape)
    await connection.execute("drop schema pgworker cascade; drop schema public cascade")
    await connection.execute("create schema public")
    await migrate(connection)

    assert await connection.fetch(shape) == adopted


async def test_a_column_that_nobody_fills_is_a_note_for_those_who_add_clients(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        "create table clients (id uuid primary key, name text not null, email text not null,"
        " plan text not null default 'free')"
    )

    notices = (await read_plan(connection)).notices

    assert any("clients add" in notice and "email must be given" in notice for notice in notices)


# -- decided without a database ---------------------------------------------------------------

HERE = Surroundings("app", "db", True, False, False, False, True, None, True)
TABLE = Table("r", "p", False, "", False, "app", True, True, 10, 8192, [], [], [])
KEY = UniqueIndex("clients_pkey", ["id"], is_primary=True)
FINE = {"id": Column("id", "uuid", "uuid", is_not_null=True)}


def facts(**changed: Any) -> Facts:
    fields: dict[str, Any] = {
        "surroundings": HERE,
        "security": Security("app"),
        "table": TABLE,
        "columns": FINE,
        "unique_indexes": (KEY,),
    }
    return Facts(**{**fields, **changed})


def test_a_bare_table_with_a_key_is_fine() -> None:
    assert find_objections(facts()) == ()


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"unique_indexes": ()}, "it has no key of its own"),
        ({"unique_indexes": (KEY._replace(is_partial=True),)}, "it has no key of its own"),
        ({"unique_indexes": (KEY._replace(columns=["id", "x"]),)}, "it has no key of its own"),
        ({"unique_indexes": (KEY._replace(columns=[""]),)}, "it has no key of its own"),
        ({"unique_indexes": (KEY._replace(is_valid=False),)}, "index clients_pkey is invalid"),
        ({"unique_indexes": (KEY._replace(is_immediate=False),)}, "clients_pkey is deferrable"),
        ({"columns": {}, "unique_indexes": ()}, "there is no such column"),
        ({"table": TABLE._replace(partition_key="RANGE (at)"), "unique_indexes": ()}, "RANGE (at)"),
        ({"status_checks": (StatusCheck("c", ("ready",)),)}, "refuses provisioning_status ready"),
    ],
)
def test_one_fault_is_one_objection(changed: dict[str, Any], found: str) -> None:
    (objection,) = find_objections(facts(**changed))

    assert found in objection.found


def test_a_check_that_accepts_all_statuses_and_a_key_that_is_partial_are_fine() -> None:
    partial = UniqueIndex("u", ["provisioning_status"], is_partial=True)

    assert (
        find_objections(facts(status_checks=(StatusCheck("c", ()),), unique_indexes=(KEY, partial)))
        == ()
    )


@pytest.mark.parametrize(("size", "lock"), [(8192, "share"), (2**30, "share update exclusive")])
def test_a_large_table_gets_its_index_without_blocking_writes(size: int, lock: str) -> None:
    plan = make_plan(facts(table=TABLE._replace(size_bytes=size)), (), has_index=False)

    assert [change.lock for change in plan.changes] == [lock]
