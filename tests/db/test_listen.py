"""The listener: it wakes, and it connects again by itself."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest
from structlog.testing import capture_logs

from pgworker.db.listen import CHANNEL, Listener
from pgworker.simulator.pooler import build_fatal
from tests.support.polling import wait_for_log
from tests.support.tcp_proxy import running_proxy_to
from tests.support.workers import NEVER, within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OFTEN = timedelta(milliseconds=50)


class Wakes:
    """Counts wake-ups, and lets a test await the next one."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._event.set()

    async def next(self) -> None:
        """Return once there has been a wake-up since the last call."""
        await within(self._event.wait())
        self._event.clear()


@asynccontextmanager
async def listening(
    dsn: str, *, ping_every: timedelta = NEVER, ping_timeout: timedelta = timedelta(seconds=5)
) -> AsyncIterator[tuple[Listener, Wakes]]:
    """Run a listener that has connected."""
    wakes = Wakes()
    listener = Listener(dsn, wakes, ping_every=ping_every, ping_timeout=ping_timeout)
    task = asyncio.create_task(listener.run())
    try:
        await wakes.next()
        yield listener, wakes
    finally:
        task.cancel()
        await within(asyncio.wait([task]))


@pytest.fixture
async def connection(empty_database: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(empty_database)
    yield opened
    await opened.close()


async def test_a_notification_wakes(empty_database: str, connection: asyncpg.Connection) -> None:
    async with listening(empty_database) as (listener, wakes):
        assert listener.is_connected
        await connection.execute(f"notify {CHANNEL}")
        await wakes.next()


async def test_connecting_wakes_because_something_may_have_been_missed(
    empty_database: str,
) -> None:
    async with listening(empty_database) as (_, wakes):
        assert wakes.count == 1


async def test_a_lost_connection_comes_back_and_wakes(
    empty_database: str, connection: asyncpg.Connection
) -> None:
    async with listening(empty_database) as (_, wakes):
        await connection.fetchval(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name = 'pgworker listen'"
        )
        await wakes.next()
        await connection.execute(f"notify {CHANNEL}")
        await wakes.next()


async def test_a_ping_right_after_the_server_closed_is_a_lost_connection_and_no_bug(
    empty_database: str, connection: asyncpg.Connection
) -> None:
    async with (
        running_proxy_to(empty_database) as (proxy, through),
        listening(through, ping_every=OFTEN) as (_, wakes),
    ):
        (link,) = proxy.links
        # Its FATAL arrives, and the end of the connection is late.
        proxy.freeze()
        words = "terminating connection due to administrator command"
        link.client.write(build_fatal("57P01", words))
        with capture_logs() as logs:
            await wait_for_log(logs, "database_unreachable")
        proxy.forward()
        await wakes.next()
        await connection.execute(f"notify {CHANNEL}")
        await wakes.next()


async def test_a_half_open_connection_is_noticed_by_the_ping(
    empty_database: str, connection: asyncpg.Connection
) -> None:
    with capture_logs() as logs:
        async with (
            running_proxy_to(empty_database) as (proxy, through),
            listening(through, ping_every=OFTEN, ping_timeout=timedelta(seconds=0.5)) as (_, wakes),
        ):
            proxy.freeze()
            proxy.accepted.clear()
            await within(proxy.accepted.wait())
            proxy.forward()
            proxy.reset()
            await wakes.next()
            await connection.execute(f"notify {CHANNEL}")
            await wakes.next()

    # More than one where the server is silent that long because the machine is busy.
    errors = {log["error"] for log in logs if log["event"] == "database_unreachable"}
    assert errors == {"the server was silent for 0.5 s"}


async def test_a_server_that_takes_no_writes_is_one_outage_however_often_it_is_connected_to(
    empty_database: str, connection: asyncpg.Connection
) -> None:
    name = await connection.fetchval("select current_database()")
    await connection.execute(f'alter database "{name}" set default_transaction_read_only = on')
    with capture_logs() as logs:
        async with running_proxy_to(empty_database) as (proxy, through):
            wakes = Wakes()
            listener = asyncio.create_task(Listener(through, wakes).run())
            for _ in range(3):
                await within(proxy.accepted.wait())
                proxy.accepted.clear()
            await connection.execute(
                f"set default_transaction_read_only = off;"
                f'alter database "{name}" reset default_transaction_read_only'
            )
            await wakes.next()
            listener.cancel()
            await asyncio.wait([listener])

    assert [log["event"] for log in logs] == [
        "database_unreachable",
        "listen_connected",
        "database_recovered",
    ]
    assert "takes no writes" in logs[0]["error"]


async def test_pings_wake_no_process(empty_database: str, connection: asyncpg.Connection) -> None:
    own: asyncio.Queue[str] = asyncio.Queue()
    async with listening(empty_database, ping_every=OFTEN) as (_, wakes):
        pid = await connection.fetchval(
            "select pid from pg_stat_activity"
            " where datname = current_database() and application_name = 'pgworker listen'"
        )
        await connection.add_listener(f"{CHANNEL}_ping_{pid}", lambda *_: own.put_nowait("pinged"))
        for _ in range(3):
            await within(own.get())
        assert wakes.count == 1


async def test_its_log_never_holds_the_password(empty_database: str) -> None:
    with capture_logs() as logs:
        async with (
            running_proxy_to(empty_database) as (proxy, through),
            listening(through) as (_, wakes),
        ):
            proxy.forward()
            proxy.reset()
            await wakes.next()

    password = through.partition("://")[2].partition("@")[0].partition(":")[2]
    assert {log["event"] for log in logs} == {
        "listen_connected",
        "database_unreachable",
        "database_recovered",
    }
    assert not password or password not in str(logs)
