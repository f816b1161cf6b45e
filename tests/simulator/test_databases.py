"""Real databases: answers of `database/query`, logins through the pooler."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from tests.support.polling import eventually, wait_until

PASSWORD = "correct-horse-battery"


async def test_rows_come_back_with_201_and_values_as_json(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        response = await sim.query(
            ref,
            "select 1 as small, 9007199254740993 as large, 1.50::numeric as exact, true as yes,"
            " null as nothing, '{\"a\": [1]}'::jsonb as document, array['x', null] as list,"
            " 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid as id, '\\x00ff'::bytea as bytes",
        )
        assert response.status_code == 201
        assert response.json() == [
            {
                "small": 1,
                "large": "9007199254740993",
                "exact": "1.50",
                "yes": True,
                "nothing": None,
                "document": {"a": [1]},
                "list": ["x", None],
                "id": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                "bytes": "\\x00ff",
            }
        ]


async def test_statements_without_rows_answer_an_empty_list(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        assert (await sim.query(ref, "create table t (a int)")).json() == []
        assert (await sim.query(ref, "-- nothing")).json() == []


async def test_only_the_rows_of_the_last_statement_come_back(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        assert (await sim.query(ref, "select 1 as a; select 2 as b;")).json() == [{"b": 2}]
        assert (await sim.query(ref, "select 1 as a; create table t (a int)")).json() == []


async def test_several_statements_are_one_transaction(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        failed = await sim.query(ref, "create table t (a int); select 1 / 0")
        assert failed.status_code == 400
        assert (await sim.query(ref, "select to_regclass('t') as found")).json() == [
            {"found": None}
        ]


async def test_a_script_commits_where_it_says_so(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        failed = await sim.query(ref, "begin; create table t (a int); commit; select 1 / 0")
        assert failed.status_code == 400
        assert (await sim.query(ref, "select * from t")).status_code == 201


async def test_no_session_survives_between_calls(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        await sim.query(ref, "set search_path to nowhere; create temporary table t (a int)")
        shown = await sim.query(ref, "show search_path")
        assert shown.json() == [{"search_path": '"$user", public'}]
        assert (await sim.query(ref, "select * from t")).status_code == 400


async def test_an_error_carries_its_sqlstate_and_the_line_it_points_at(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        failed = await sim.query(ref, "select 1;\nselect\n  * from nowhere;")
        assert failed.status_code == 400
        assert failed.json() == {
            "message": 'Failed to run sql query: ERROR:  42P01: relation "nowhere" does not exist'
            "\nLINE 3:   * from nowhere;\n                 ^"
        }
        syntax = (await sim.query(ref, "select 1;\nselec 2")).json()["message"]
        assert "42601" in syntax
        assert "LINE 2: selec 2" in syntax


async def test_an_error_without_a_position_carries_hint_and_detail(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        await sim.query(ref, "create table t (a int primary key); insert into t values (1)")
        message = (await sim.query(ref, "insert into t values (1)")).json()["message"]
        assert "ERROR:  23505:" in message
        assert "DETAIL:  Key (a)=(1) already exists." in message
        assert "LINE" not in message


async def test_parameters_are_typed_by_the_server(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        await sim.query(ref, "create table t (a int, b timestamptz, c text[], d jsonb, e text)")
        inserted = await sim.query(
            ref,
            "insert into t values ($1, $2, $3, $4, $5) returning a, c, d, e",
            parameters=[5, "2026-01-01", ["x", 'y,"z'], {"k": 1}, None],
        )
        assert inserted.json() == [{"a": 5, "c": ["x", 'y,"z'], "d": {"k": 1}, "e": None}]
        two = await sim.query(ref, "select $1; select 2", parameters=["1"])
        assert "42601" in two.json()["message"]
        wrong = (await sim.query(ref, "select a\nfrom t where nope = $1", parameters=[1])).json()
        assert "LINE 2: from t where nope = $1\n" in wrong["message"]


@pytest.mark.parametrize("statement", ["create table t (a int)", "drop table public.kept"])
async def test_read_only_queries_change_nothing(start: Any, statement: str) -> None:
    async with start() as sim:
        ref = await sim.create()
        await sim.query(ref, "create table public.kept (a int)")
        refused = await sim.query(ref, statement, read_only=True)
        assert refused.status_code == 400
        path = f"/v1/projects/{ref}/database/query/read-only"
        refused = await sim.client.post(path, json={"query": statement})
        assert refused.status_code == 400
        unqualified = await sim.client.post(path, json={"query": "select * from kept"})
        assert "42P01" in unqualified.json()["message"]
        qualified = await sim.client.post(path, json={"query": "select * from public.kept"})
        assert qualified.status_code == 201


async def test_a_statement_beyond_the_time_limit_answers_544_and_commits(
    start: Any, server_dsn: str
) -> None:
    async with start(query_seconds=0.2) as sim:
        ref = await sim.create()

        async def answers() -> bool:
            return bool((await sim.query(ref, "select 1")).status_code == 201)

        # The database is created with the first query, which may take longer than the limit.
        await eventually(answers)
        locker = await asyncpg.connect(server_dsn, database=f"simulator_{ref}")
        try:
            # Not through the simulator: on a busy machine this may take longer than the limit.
            await locker.execute("create table t (a int); grant insert on t to public")
            async with locker.transaction():
                await locker.execute("lock table t in access exclusive mode")
                late = await sim.query(ref, "insert into t values (1)")
                assert late.status_code == 544
            await wait_until(locker, "select count(*) from t")
        finally:
            await locker.close()


async def test_the_project_role_is_no_superuser_and_grants_nothing_by_default(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        role = (
            "select current_user::text as me, rolsuper from pg_roles where rolname = current_user"
        )
        assert (await sim.query(ref, role)).json() == [{"me": f"postgres.{ref}", "rolsuper": False}]
        await sim.query(ref, "create table t (a int)")
        for name in ("anon", "authenticated", "service_role"):
            sql = f"begin; set local role {name}; select * from t"
            assert "42501" in (await sim.query(ref, sql)).json()["message"]


async def test_projects_cannot_see_each_other(start: Any) -> None:
    async with start() as sim:
        first, second = await sim.create("first"), await sim.create("second")
        await sim.query(first, "create table t (a int)")
        await sim.query(second, "create table t (a int)")
        with pytest.raises(asyncpg.PostgresError, match="permission denied for database"):
            await connect(sim, first, database=f"simulator_{second}")


async def test_policies_can_use_the_platform_schemas(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        created = await sim.query(
            ref,
            "create table public.notes (id uuid references auth.users (id));"
            "alter table public.notes enable row level security;"
            "create policy own on public.notes using (id = auth.uid())",
        )
        assert created.status_code == 201, created.text


async def test_two_simulators_share_one_server(start: Any) -> None:
    async with start() as one, start() as two:
        refs = await asyncio.gather(*(sim.create() for sim in (one, two)))
        answers = await asyncio.gather(
            *(sim.query(ref, "select 1") for sim, ref in zip((one, two), refs, strict=True))
        )
        assert [answer.status_code for answer in answers] == [201, 201]


async def test_many_projects_are_created_at_once(start: Any) -> None:
    async with start(rate_limit=1000) as sim:
        refs = [await sim.create(f"p{number}") for number in range(20)]
        answers = await asyncio.gather(*(sim.query(ref, "select 1") for ref in refs))
        assert {answer.status_code for answer in answers} == {201}


async def test_databases_are_gone_after_delete_and_after_closing(
    start: Any, server_dsn: str
) -> None:
    admin = await asyncpg.connect(server_dsn)
    sql = "select count(*) from pg_database where datname = any($1::text[])"
    try:
        async with start() as sim:
            deleted, kept = await sim.create("deleted"), await sim.create("kept")
            names = [f"simulator_{ref}" for ref in (deleted, kept)]
            for ref in (deleted, kept):
                await sim.query(ref, "select 1")
            assert await admin.fetchval(sql, names) == 2
            await sim.client.delete(f"/v1/projects/{deleted}")
            assert await admin.fetchval(sql, names) == 1
        assert await admin.fetchval(sql, names) == 0
    finally:
        await admin.close()


# -- the pooler -------------------------------------------------------------------------------


async def connect(sim: Any, ref: str, **parameters: Any) -> asyncpg.Connection:
    return await asyncpg.connect(
        host="127.0.0.1",
        port=sim.simulator.pooler_port,
        user=f"postgres.{ref}",
        **{"password": PASSWORD, "database": "postgres"} | parameters,
    )


async def test_the_pooler_is_described_as_recorded(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        (entry,) = (await sim.client.get(f"/v1/projects/{ref}/config/database/pooler")).json()
        assert entry["db_user"] == f"postgres.{ref}"
        assert (entry["database_type"], entry["db_port"], entry["pool_mode"]) == (
            "PRIMARY",
            6543,
            "transaction",
        )
        assert "[YOUR-PASSWORD]" in entry["connection_string"]
        assert PASSWORD not in str(entry)


@pytest.mark.parametrize("named", ["postgres", "as the API says"])
async def test_the_pooler_accepts_a_session_with_its_password(start: Any, named: str) -> None:
    async with start() as sim:
        ref = await sim.create()
        (entry,) = (await sim.client.get(f"/v1/projects/{ref}/config/database/pooler")).json()
        database = named if named == "postgres" else entry["db_name"]
        session = await connect(sim, ref, database=database)
        try:
            await session.execute("create temporary table kept (a int)")
            assert await session.fetch("select * from kept") == []
            assert await session.fetchval("select current_database()") == entry["db_name"]
        finally:
            await session.close()


async def test_the_real_server_accepts_the_same_login(start: Any, server_dsn: str) -> None:
    async with start() as sim:
        ref = await sim.create()
        (entry,) = (await sim.client.get(f"/v1/projects/{ref}/config/database/pooler")).json()
        session = await asyncpg.connect(
            server_dsn, user=entry["db_user"], password=PASSWORD, database=entry["db_name"]
        )
        assert await session.fetchval("select current_user::text") == entry["db_user"]
        await session.close()


async def test_a_wrong_password_is_refused(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await connect(sim, ref, password="wrong")


async def test_the_pooler_does_not_know_a_tenant_for_a_while(start: Any) -> None:
    async with start(pooler_lag_seconds=5) as sim:
        ref = await sim.create()
        with pytest.raises(asyncpg.InternalServerError, match="Tenant or user not found"):
            await connect(sim, ref)
        with pytest.raises(asyncpg.InternalServerError, match="Tenant or user not found"):
            await connect(sim, "z" * 20)
        sim.clock.advance(5)
        await (await connect(sim, ref)).close()


async def test_a_changed_password_replaces_the_old_one(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        path = f"/v1/projects/{ref}/database/password"
        assert (await sim.client.patch(path, json={"password": "abc"})).status_code == 400
        for _ in range(2):
            changed = await sim.client.patch(path, json={"password": "changed-it"})
            assert changed.status_code == 200
        await (await connect(sim, ref, password="changed-it")).close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await connect(sim, ref)
        assert (await sim.query(ref, "select 1")).status_code == 201
