"""What an operator reads when the database can't be opened."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from pgworker.db import pool as pool_module
from pgworker.db.pool import connect, connected, describe_dsn, open_pool
from pgworker.db.translation import DATABASE_ERRORS, translate
from pgworker.errors import BadConfiguration, DatabaseUnreachable, PgworkerError
from tests.support.tcp_proxy import running_proxy_to

if TYPE_CHECKING:
    from collections.abc import Callable

PASSWORD = "hunter2"


def one_line_without_the_password(error: BaseException) -> str:
    assert error is not None
    text = str(error)
    assert "\n" not in text
    assert PASSWORD not in text
    assert text[0].islower() or text.startswith(("DATABASE_URL", "PostgreSQL"))
    return text


async def test_a_server_that_is_not_running_is_unreachable_and_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(DatabaseUnreachable) as refusal:
            await connect(f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/app")

    line = one_line_without_the_password(refusal.value)
    assert line.endswith(f"127.0.0.1:{port}/app can't be reached: Connection refused")


async def test_a_wrong_password_is_bad_configuration_and_names_the_user(server_dsn: str) -> None:
    parts = urlsplit(server_dsn)
    host = parts.netloc.rpartition("@")[2]

    with pytest.raises(BadConfiguration) as refusal:
        await connect(f"postgresql://{parts.username}:{PASSWORD}@{host}{parts.path}")

    text = one_line_without_the_password(refusal.value)
    assert str(parts.username) in text
    assert host in text


async def test_a_missing_database_is_bad_configuration(server_dsn: str) -> None:
    with pytest.raises(BadConfiguration, match="no such database") as refusal:
        await connect(urlsplit(server_dsn)._replace(path="/nowhere").geturl())

    assert str(urlsplit(server_dsn).password) not in str(refusal.value)


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://me:{PASSWORD}#more@localhost/app",
        f"postgresql://me:{PASSWORD}/more@localhost/app",
        f"postgresql://me:{PASSWORD}?more@localhost/app",
        f"postgresql://me:more/{PASSWORD}@localhost/app",
        f"postgresql://me:more#{PASSWORD}@localhost/app",
        f"postgresql://me:{PASSWORD}@localhost:port/app",
        f"mysql://me:{PASSWORD}@localhost/app",
    ],
)
async def test_a_url_that_cannot_be_read_is_bad_configuration(dsn: str) -> None:
    with pytest.raises(PgworkerError) as refusal:
        await connect(dsn)

    assert isinstance(refusal.value, BadConfiguration)
    one_line_without_the_password(refusal.value)


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://me:hunter2@db.example:5433/app", "db.example:5433/app"),
        ("postgresql://me:hunt@er2@db.example/app", "db.example/app"),
        ("postgresql:///app", "the local socket/app"),
        ("postgresql://me:hunter2@db/app?password=hunter2", "db/app"),
        ("postgresql://me:hunter2#x@db/app", "the given address"),
        ("postgresql://me:hunter2/x@db/app", "the given address"),
        ("postgresql://me:hun@ter2/x@db/app", "the given address"),
    ],
)
def test_a_described_dsn_never_shows_the_password(dsn: str, shown: str) -> None:
    assert describe_dsn(dsn) == shown


async def test_a_pool_says_at_once_that_the_database_is_unreachable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dsn = f"postgresql://me:{PASSWORD}@127.0.0.1:{free.getsockname()[1]}/app"
        with pytest.raises(DatabaseUnreachable):
            async with open_pool(dsn):
                pytest.fail("it opened")


async def test_a_pool_opens_no_more_connections_than_it_may(empty_database: str) -> None:
    async with open_pool(empty_database, max_size=3, application_name="small") as pool:
        counts = await asyncio.gather(
            *(
                pool.fetchval(
                    "select count(*) from pg_stat_activity"
                    " where application_name = 'small' and datname = current_database()"
                )
                for _ in range(20)
            )
        )

    assert max(counts) <= 3


@pytest.mark.parametrize("what", [connected, open_pool])
async def test_a_network_that_is_silent_while_a_connection_is_closed_is_no_error(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, what: Callable[[str], Any]
) -> None:
    monkeypatch.setattr(pool_module, "CLOSE_TIMEOUT", timedelta(milliseconds=50))
    async with (
        asyncio.timeout(60),
        running_proxy_to(empty_database) as (proxy, through),
        what(through) as database,
    ):
        await database.fetchval("select 1")
        # The server never receives our goodbye (Terminate).
        proxy.freeze()


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.ConnectionDoesNotExistError("gone"),
        asyncpg.AdminShutdownError("going"),
        asyncpg.CannotConnectNowError("starting"),
        asyncpg.TooManyConnectionsError("full"),
        asyncpg.DeadlockDetectedError("deadlock"),
        asyncpg.ReadOnlySQLTransactionError("a standby now"),
        asyncpg.InterfaceError("closed"),
        asyncpg.InternalClientError("another operation is in progress"),
        ConnectionResetError("reset"),
        TimeoutError(),
    ],
)
def test_a_passing_error_is_an_unreachable_database(error: Exception) -> None:
    assert isinstance(translate(error), DatabaseUnreachable)


async def test_an_error_of_a_session_that_an_administrator_ended_names_the_cause(
    empty_database: str,
) -> None:
    async with connected(empty_database) as mine, connected(empty_database) as administrator:
        gone = asyncio.Event()
        mine.add_termination_listener(lambda _: gone.set())
        waiting = asyncio.ensure_future(mine.execute("select pg_sleep(60)"))
        await administrator.execute("select pg_terminate_backend($1)", mine.get_server_pid())
        with pytest.raises(DATABASE_ERRORS) as cut_off:
            await waiting
        async with asyncio.timeout(60):
            await gone.wait()
        with pytest.raises(DATABASE_ERRORS) as too_late:
            await mine.execute("select 1")

    for error in (cut_off.value, too_late.value, asyncpg.ConnectionDoesNotExistError("closed")):
        ours = translate(error)
        assert ours is not None
        assert "pg_terminate_backend" in one_line_without_the_password(ours)


async def test_a_value_that_cannot_be_sent_is_our_mistake_and_not_an_outage(
    empty_database: str,
) -> None:
    async with open_pool(empty_database) as pool:
        with pytest.raises(asyncpg.DataError, match="invalid input") as mistake:
            await pool.fetchval("select $1::integer", "seven")

    assert translate(mistake.value) is None
