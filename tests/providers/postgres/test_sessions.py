"""Sessions on the tenants' server: kept for a moment, as good as new, never too many."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from pgworker.errors import Permanent
from pgworker.providers.postgres import sessions as module
from pgworker.providers.postgres.sessions import Sessions
from pgworker.tenants.connection import StatementError
from pgworker.tenants.postgres_connection import PostgresTenantConnection, open_postgres
from tests.support.polling import eventually, wait_until

PID = "select pg_backend_pid() as pid"


async def pid_of(sessions: Sessions, dsn: str, **how: bool) -> int:
    async with sessions.lend(dsn, **how) as session:
        return int((await session.fetch(PID))[0]["pid"])


async def test_who_comes_back_at_once_finds_the_same_session_as_good_as_new(
    empty_database: str,
) -> None:
    sessions = Sessions(kept_for=timedelta(minutes=1))
    async with sessions.lend(empty_database) as session:
        first = (await session.fetch(PID))[0]["pid"]
        await session.execute("create role pgworker_test_passenger")
        await session.execute(
            "create temporary table t (a int); set search_path = 'elsewhere';"
            "select pg_advisory_lock(1); set role pgworker_test_passenger"
        )

    async with sessions.lend(empty_database) as session:
        (row,) = await session.fetch(
            "select pg_backend_pid() as pid, to_regclass('pg_temp.t') as temporary,"
            " current_setting('search_path') as search_path,"
            " session_user = current_user as is_self,"
            " (select count(*) from pg_locks"
            " where locktype = 'advisory' and pid = pg_backend_pid()) as locks"
        )
        await session.execute("drop role pgworker_test_passenger")

    await sessions.aclose()
    assert row == {
        "pid": first,
        "temporary": None,
        "search_path": '"$user", public',
        "is_self": True,
        "locks": 0,
    }


async def test_a_session_is_cleaned_up_when_it_is_given_back_and_not_when_it_is_lent(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(kept_for=timedelta(minutes=1))
    async with sessions.lend(empty_database) as session:
        await session.execute("select pg_advisory_lock(1)")
    admin = await asyncpg.connect(empty_database)
    locks = "select count(*) = 0 from pg_locks where locktype = 'advisory' and objid = 1"
    await wait_until(admin, locks)
    await admin.close()

    async def none_expected(_: PostgresTenantConnection, statement: str) -> None:
        raise AssertionError(statement)

    with monkeypatch.context() as patch:
        patch.setattr(PostgresTenantConnection, "execute", none_expected)
        async with sessions.lend(empty_database) as again:
            assert again is session
    await sessions.aclose()


async def test_a_session_that_does_not_answer_is_closed_all_the_same(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(kept_for=timedelta(minutes=1))
    monkeypatch.setattr(module, "SIGN_OF_LIFE", timedelta(seconds=0.1))

    async def silent(_: PostgresTenantConnection, __: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(PostgresTenantConnection, "execute", silent)
    async with sessions.lend(empty_database) as session:
        pass

    async with asyncio.timeout(60):
        await sessions.aclose()

    assert session.is_closed


async def test_who_wants_a_fresh_session_or_leaves_none_behind_logs_in(empty_database: str) -> None:
    sessions = Sessions()

    kept = await pid_of(sessions, empty_database)
    fresh = await pid_of(sessions, empty_database, fresh=True)
    await sessions.aclose()
    not_kept = await pid_of(sessions, empty_database, keep=False)
    last = await pid_of(sessions, empty_database)

    await sessions.aclose()
    assert len({kept, fresh, not_kept, last}) == 4


async def test_who_is_expected_finds_a_session_that_was_opened_meanwhile(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    sessions = Sessions(kept_for=timedelta(minutes=1))

    sessions.expect(empty_database)
    sessions.expect(empty_database)
    first = await pid_of(sessions, empty_database)

    assert counting.most == 1
    assert await pid_of(sessions, empty_database) == first
    await sessions.aclose()
    assert counting.now == 0


async def test_a_refusal_of_who_is_expected_is_told_when_they_come(empty_database: str) -> None:
    sessions = Sessions()
    nowhere = empty_database.rpartition("/")[0] + "/no_such_database"

    sessions.expect(nowhere)

    with pytest.raises(Permanent, match="3D000"):
        await pid_of(sessions, nowhere)
    await sessions.aclose()


async def test_who_is_expected_takes_a_place_like_anybody_else(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    sessions = Sessions(at_once=2)
    users = [f"{empty_database}?application_name=user{number}" for number in range(5)]

    for user in users:
        sessions.expect(user)
    await asyncio.gather(*(pid_of(sessions, user) for user in users))

    assert counting.most == 2
    await sessions.aclose()
    assert counting.now == 0


async def test_nobody_is_expected_any_more_when_all_is_closed(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    sessions = Sessions(kept_for=timedelta(minutes=1))

    sessions.expect(empty_database)
    await asyncio.sleep(0)
    await sessions.aclose()

    assert counting.now == 0
    assert {task.get_name() for task in asyncio.all_tasks()} & {"expected session"} == set()


async def test_a_session_that_is_not_kept_leaves_the_server(empty_database: str) -> None:
    sessions = Sessions()

    pid = await pid_of(sessions, empty_database, keep=False)

    admin = await asyncpg.connect(empty_database)
    is_gone = "select not exists (select from pg_stat_activity where pid = $1)"
    await wait_until(admin, is_gone, pid)
    await admin.close()
    await sessions.aclose()


async def test_a_session_that_was_cut_off_meanwhile_is_replaced_unnoticed(
    empty_database: str,
) -> None:
    sessions = Sessions()
    first = await pid_of(sessions, empty_database)
    admin = await asyncpg.connect(empty_database)
    await admin.execute(f"select pg_terminate_backend({first}, 10000)")
    await admin.close()

    second = await pid_of(sessions, empty_database)

    await sessions.aclose()
    assert second != first


async def test_who_finds_a_silent_session_takes_none_that_another_took_meanwhile(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(kept_for=timedelta(minutes=1))
    async with sessions.lend(empty_database), sessions.lend(empty_database):
        pass
    is_silent, other_was_taken = asyncio.Event(), asyncio.Event()
    execute = PostgresTenantConnection.execute

    async def silent_at_first(session: PostgresTenantConnection, statement: Any) -> None:
        if statement == module.CLEAN_UP and not is_silent.is_set():
            is_silent.set()
            await other_was_taken.wait()
            raise TimeoutError
        await execute(session, statement)

    monkeypatch.setattr(PostgresTenantConnection, "execute", silent_at_first)
    first = asyncio.create_task(pid_of(sessions, empty_database))
    await asyncio.wait_for(is_silent.wait(), 60)
    async with sessions.lend(empty_database) as session:
        other = int((await session.fetch(PID))[0]["pid"])
        other_was_taken.set()
        found = await asyncio.wait_for(first, 60)
    await sessions.aclose()

    assert found != other


async def fail(sessions: Sessions, dsn: str) -> None:
    async with sessions.lend(dsn) as session:
        await session.execute("select 1 / 0")


async def test_a_session_whose_user_failed_is_not_lent_again(empty_database: str) -> None:
    sessions = Sessions()
    first = await pid_of(sessions, empty_database)

    with pytest.raises(StatementError):
        await fail(sessions, empty_database)

    assert await pid_of(sessions, empty_database) != first
    await sessions.aclose()


async def test_a_session_that_can_not_be_cleaned_up_is_not_lent_again(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(kept_for=timedelta(minutes=1))
    execute = PostgresTenantConnection.execute

    async def refused(session: PostgresTenantConnection, statement: str) -> None:
        if statement == module.CLEAN_UP:
            raise StatementError("refused", sqlstate="42501")
        await execute(session, statement)

    with monkeypatch.context() as patch:
        patch.setattr(PostgresTenantConnection, "execute", refused)
        first = await pid_of(sessions, empty_database)
        assert await pid_of(sessions, empty_database) != first
    await sessions.aclose()


class Counting:
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


async def test_there_are_never_more_than_so_many_whoever_asks(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    sessions = Sessions(at_once=3)

    await asyncio.gather(
        # Others of another database: what is kept of it must make room.
        *(
            pid_of(sessions, f"{empty_database}?application_name=user{number % 5}")
            for number in range(20)
        )
    )

    assert counting.most == 3
    await sessions.aclose()
    assert counting.now == 0


async def test_a_session_is_not_kept_for_longer_than_said(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    sessions = Sessions(kept_for=timedelta(0))

    await pid_of(sessions, empty_database)

    await eventually(lambda: not counting.now)


async def test_a_refused_login_takes_no_room(empty_database: str) -> None:
    sessions = Sessions(at_once=1)
    for _ in range(2):
        with pytest.raises(Permanent):
            await pid_of(sessions, empty_database.rpartition("/")[0] + "/no_such_database")

    async with asyncio.timeout(60):
        await pid_of(sessions, empty_database)
    await sessions.aclose()
