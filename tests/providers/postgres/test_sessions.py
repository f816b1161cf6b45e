"""The pool of sessions on the tenants' server: reused, reset, and never too many."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from pgworker.errors import Permanent
from pgworker.providers.postgres import sessions as module
from pgworker.providers.postgres.sessions import SessionPool
from pgworker.tenants.connection import StatementError
from pgworker.tenants.postgres_connection import PostgresTenantConnection, open_postgres
from tests.support.polling import eventually, wait_until

PID = "select pg_backend_pid() as pid"


async def read_pid(pool: SessionPool, dsn: str, **how: bool) -> int:
    async with pool.acquire(dsn, **how) as session:
        return int((await session.fetch(PID))[0]["pid"])


async def test_a_user_that_comes_back_soon_gets_the_same_session_reset(
    empty_database: str,
) -> None:
    pool = SessionPool(idle_timeout=timedelta(minutes=1))
    async with pool.acquire(empty_database) as session:
        first = (await session.fetch(PID))[0]["pid"]
        await session.execute("create role pgworker_test_user")
        await session.execute(
            "create temporary table t (a int); set search_path = 'elsewhere';"
            "select pg_advisory_lock(1); set role pgworker_test_user"
        )

    async with pool.acquire(empty_database) as session:
        (row,) = await session.fetch(
            "select pg_backend_pid() as pid, to_regclass('pg_temp.t') as temporary,"
            " current_setting('search_path') as search_path,"
            " session_user = current_user as is_self,"
            " (select count(*) from pg_locks"
            " where locktype = 'advisory' and pid = pg_backend_pid()) as locks"
        )
        await session.execute("drop role pgworker_test_user")

    await pool.aclose()
    assert row == {
        "pid": first,
        "temporary": None,
        "search_path": '"$user", public',
        "is_self": True,
        "locks": 0,
    }


async def test_a_session_is_reset_when_it_is_returned_and_not_when_it_is_acquired(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = SessionPool(idle_timeout=timedelta(minutes=1))
    async with pool.acquire(empty_database) as session:
        await session.execute("select pg_advisory_lock(1)")
    admin = await asyncpg.connect(empty_database)
    locks = "select count(*) = 0 from pg_locks where locktype = 'advisory' and objid = 1"
    await wait_until(admin, locks)
    await admin.close()

    async def refuse(_: PostgresTenantConnection, statement: str) -> None:
        raise AssertionError(statement)

    with monkeypatch.context() as patch:
        patch.setattr(PostgresTenantConnection, "execute", refuse)
        async with pool.acquire(empty_database) as again:
            assert again is session
    await pool.aclose()


async def test_a_session_that_does_not_answer_is_closed_with_the_pool(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = SessionPool(idle_timeout=timedelta(minutes=1))
    monkeypatch.setattr(module, "RESET_TIMEOUT", timedelta(seconds=0.1))

    async def silent(_: PostgresTenantConnection, __: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(PostgresTenantConnection, "execute", silent)
    async with pool.acquire(empty_database) as session:
        pass

    async with asyncio.timeout(60):
        await pool.aclose()

    assert session.is_closed


async def test_a_fresh_session_and_one_that_is_not_kept_need_a_login(empty_database: str) -> None:
    pool = SessionPool()

    returned = await read_pid(pool, empty_database)
    fresh = await read_pid(pool, empty_database, fresh=True)
    await pool.aclose()
    not_kept = await read_pid(pool, empty_database, keep=False)
    last = await read_pid(pool, empty_database)

    await pool.aclose()
    assert len({returned, fresh, not_kept, last}) == 4


async def test_a_prewarmed_session_is_the_one_that_its_user_acquires(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = SessionCounter(monkeypatch)
    pool = SessionPool(idle_timeout=timedelta(minutes=1))

    pool.prewarm(empty_database)
    pool.prewarm(empty_database)
    first = await read_pid(pool, empty_database)

    assert counter.most == 1
    assert await read_pid(pool, empty_database) == first
    await pool.aclose()
    assert counter.now == 0


async def test_a_refused_prewarm_is_an_error_of_the_user_that_acquires(empty_database: str) -> None:
    pool = SessionPool()
    nowhere = empty_database.rpartition("/")[0] + "/no_such_database"

    pool.prewarm(nowhere)

    with pytest.raises(Permanent, match="3D000"):
        await read_pid(pool, nowhere)
    await pool.aclose()


async def test_a_prewarmed_session_counts_towards_the_size_of_the_pool(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = SessionCounter(monkeypatch)
    pool = SessionPool(max_size=2)
    users = [f"{empty_database}?application_name=user{number}" for number in range(5)]

    for user in users:
        pool.prewarm(user)
    await asyncio.gather(*(read_pid(pool, user) for user in users))

    assert counter.most == 2
    await pool.aclose()
    assert counter.now == 0


async def test_closing_the_pool_ends_its_background_tasks(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = SessionCounter(monkeypatch)
    pool = SessionPool(idle_timeout=timedelta(minutes=1))

    pool.prewarm(empty_database)
    await asyncio.sleep(0)
    await pool.aclose()

    assert counter.now == 0
    assert {task.get_name() for task in asyncio.all_tasks()} & {
        "prewarm a session",
        "reset a session",
    } == set()


async def test_a_session_that_is_not_kept_ends_at_the_server(empty_database: str) -> None:
    pool = SessionPool()

    pid = await read_pid(pool, empty_database, keep=False)

    admin = await asyncpg.connect(empty_database)
    is_gone = "select not exists (select from pg_stat_activity where pid = $1)"
    await wait_until(admin, is_gone, pid)
    await admin.close()
    await pool.aclose()


async def test_an_idle_session_that_the_server_closed_is_replaced(
    empty_database: str,
) -> None:
    pool = SessionPool()
    first = await read_pid(pool, empty_database)
    admin = await asyncpg.connect(empty_database)
    await admin.execute(f"select pg_terminate_backend({first}, 10000)")
    await admin.close()

    second = await read_pid(pool, empty_database)

    await pool.aclose()
    assert second != first


async def test_a_user_that_waits_for_a_silent_session_takes_none_that_another_acquired(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = SessionPool(idle_timeout=timedelta(minutes=1))
    async with pool.acquire(empty_database), pool.acquire(empty_database):
        pass
    is_silent, other_was_taken = asyncio.Event(), asyncio.Event()
    execute = PostgresTenantConnection.execute

    async def silent_at_first(session: PostgresTenantConnection, statement: Any) -> None:
        if statement == module.RESET and not is_silent.is_set():
            is_silent.set()
            await other_was_taken.wait()
            raise TimeoutError
        await execute(session, statement)

    monkeypatch.setattr(PostgresTenantConnection, "execute", silent_at_first)
    first = asyncio.create_task(read_pid(pool, empty_database))
    await asyncio.wait_for(is_silent.wait(), 60)
    async with pool.acquire(empty_database) as session:
        other = int((await session.fetch(PID))[0]["pid"])
        other_was_taken.set()
        found = await asyncio.wait_for(first, 60)
    await pool.aclose()

    assert found != other


async def fail(pool: SessionPool, dsn: str) -> None:
    async with pool.acquire(dsn) as session:
        await session.execute("select 1 / 0")


async def test_a_session_whose_user_failed_is_not_used_again(empty_database: str) -> None:
    pool = SessionPool()
    first = await read_pid(pool, empty_database)

    with pytest.raises(StatementError):
        await fail(pool, empty_database)

    assert await read_pid(pool, empty_database) != first
    await pool.aclose()


async def test_a_session_that_cannot_be_reset_is_not_used_again(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = SessionPool(idle_timeout=timedelta(minutes=1))
    execute = PostgresTenantConnection.execute

    async def refused(session: PostgresTenantConnection, statement: str) -> None:
        if statement == module.RESET:
            raise StatementError("refused", sqlstate="42501")
        await execute(session, statement)

    with monkeypatch.context() as patch:
        patch.setattr(PostgresTenantConnection, "execute", refused)
        first = await read_pid(pool, empty_database)
        assert await read_pid(pool, empty_database) != first
    await pool.aclose()


class SessionCounter:
    """Counts the sessions that are open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = 0

        async def opening(dsn: str) -> PostgresTenantConnection:
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                return await open_postgres(dsn)
            except BaseException:
                self.now -= 1
                raise

        monkeypatch.setattr(module, "open_postgres", opening)
        close, terminate = PostgresTenantConnection.close, PostgresTenantConnection.terminate

        async def closing(session: Any) -> None:
            await close(session)
            self.now -= 1

        def terminating(session: Any) -> None:
            terminate(session)
            self.now -= 1

        monkeypatch.setattr(PostgresTenantConnection, "close", closing)
        monkeypatch.setattr(PostgresTenantConnection, "terminate", terminating)


async def test_a_pool_never_has_more_sessions_than_its_size(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = SessionCounter(monkeypatch)
    pool = SessionPool(max_size=3)

    await asyncio.gather(
        # Idle sessions of other databases must make room.
        *(
            read_pid(pool, f"{empty_database}?application_name=user{number % 5}")
            for number in range(20)
        )
    )

    assert counter.most == 3
    await pool.aclose()
    assert counter.now == 0


async def test_an_idle_session_is_closed_after_the_idle_timeout(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = SessionCounter(monkeypatch)
    pool = SessionPool(idle_timeout=timedelta(0))

    await read_pid(pool, empty_database)

    await eventually(lambda: not counter.now)


async def test_a_refused_login_occupies_no_slot(empty_database: str) -> None:
    pool = SessionPool(max_size=1)
    for _ in range(2):
        with pytest.raises(Permanent):
            await read_pid(pool, empty_database.rpartition("/")[0] + "/no_such_database")

    async with asyncio.timeout(60):
        await read_pid(pool, empty_database)
    await pool.aclose()
