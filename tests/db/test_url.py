"""Parameters of a database URL: honoured, or left out with one line; never sent to the server."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from pgworker.db import url as url_module
from pgworker.db.hosts import Hosts
from pgworker.db.pool import connect, connected, describe_dsn, open_pool
from pgworker.db.url import GUARDS, HONOURED, OTHERS, UnusableParameter, UrlOptions, split_options
from pgworker.errors import BadConfiguration, Permanent
from pgworker.tenants.postgres_connection import connect_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

# As people's URLs have them: libpq's, Neon's, Prisma's, Supabase's.
USUAL = {
    "connect_timeout": "15",
    "channel_binding": "require",
    "gssencmode": "prefer",
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "5",
    "tcp_user_timeout": "20000",
    "fallback_application_name": "app",
    "require_auth": "scram-sha-256",
    "load_balance_hosts": "random",
    "sslsni": "1",
    "sslcompression": "0",
    "client_encoding": "utf8",
    "pgbouncer": "true",
    "schema": "public",
    "connection_limit": "5",
    "pool_timeout": "10",
    "socket_timeout": "10",
}


@pytest.fixture(autouse=True)
def _nothing_reported() -> Iterator[None]:
    url_module._reported.clear()
    yield
    url_module._reported.clear()


def with_query(dsn: str, query: str) -> str:
    return urlsplit(dsn)._replace(query=query).geturl()


# -- on a real server -------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({*HONOURED, *GUARDS, *OTHERS}))
async def test_a_parameter_that_asyncpg_does_not_know_is_not_refused(
    server_dsn: str, name: str
) -> None:
    async with connected(with_query(server_dsn, f"{name}={USUAL.get(name, '')}&")) as connection:
        assert await connection.fetchval("select 1") == 1


async def test_all_at_once_work_for_the_platform_and_for_its_tenants(server_dsn: str) -> None:
    dsn = with_query(server_dsn, "&".join(f"{name}={value}" for name, value in USUAL.items()))

    async with open_pool(dsn) as pool:
        assert await pool.fetchval("select 1") == 1
    async with connect_postgres(dsn) as tenant:
        assert await tenant.fetch("select 1 as one") == [{"one": 1}]


async def test_settings_of_the_server_still_reach_it(server_dsn: str) -> None:
    dsn = with_query(server_dsn, "connect_timeout=5&statement_timeout=12345&options=-c%20geqo=off")

    async with connected(dsn) as connection:
        assert await connection.fetchval("show statement_timeout") == "12345ms"
        assert await connection.fetchval("show geqo") == "off"


async def test_an_unknown_parameter_is_still_refused_in_one_line(server_dsn: str) -> None:
    """It may be a slip of the pen, and have been meant for security."""
    with pytest.raises(BadConfiguration, match='parameter "sslmod"') as refusal:
        await connect(with_query(server_dsn, "sslmod=require"))

    assert "\n" not in str(refusal.value)


async def test_the_socket_is_watched_as_the_url_says(server_dsn: str) -> None:
    query = "keepalives_idle=77&keepalives_count=9&tcp_user_timeout=12000"
    connection = await connect(with_query(server_dsn, query))
    try:
        opened = connection._socket
        assert opened is not None
        options = [
            opened.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPIDLE", "TCP_KEEPCNT", "TCP_USER_TIMEOUT", "TCP_KEEPINTVL")
        ]
    finally:
        await connection.close()

    assert options == [77, 9, 12000, 5]


async def test_a_pool_through_prismas_pooler_keeps_no_prepared_statement(server_dsn: str) -> None:
    async with open_pool(with_query(server_dsn, "pgbouncer=true"), max_size=1) as pool:
        await pool.fetchval("select $1::integer", 1)
        assert await pool.fetchval("select count(*) from pg_prepared_statements") == 0


# -- what is asked of us ----------------------------------------------------------------------


def test_a_url_without_parameters_of_ours_stays_as_it_is() -> None:
    dsn = "postgresql:///app?host=/run/postgresql&sslmode=require"

    assert split_options(dsn) == (dsn, UrlOptions())


def test_libpqs_parameters_are_honoured() -> None:
    usable, options = split_options(
        "postgres://u:p@h/app?connect_timeout=7&sslmode=require&keepalives=0&keepalives_idle=0"
        "&keepalives_interval=3&load_balance_hosts=random&pgbouncer=true"
    )

    assert usable == "postgres://u:p@h/app?sslmode=require"
    assert options.connect_timeout == timedelta(seconds=7)
    assert options.in_any_order
    assert options.is_pooled
    assert not options.socket.keepalives
    # Zero leaves it to the system.
    assert (options.socket.idle, options.socket.interval, options.socket.count) == (None, 3, 3)


@pytest.mark.parametrize("seconds", ["0", "-1"])
def test_no_connect_waits_for_ever(seconds: str) -> None:
    _, options = split_options(f"postgresql://h/app?connect_timeout={seconds}")

    assert options.connect_timeout is None


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("connect_timeout=soon", "connect_timeout must be a whole number"),
        ("keepalives_idle=x", "keepalives_idle must be a whole number"),
        ("load_balance_hosts=yes", "load_balance_hosts must be disable or random"),
    ],
)
async def test_a_value_that_cannot_be_is_named(query: str, complaint: str) -> None:
    with pytest.raises(UnusableParameter, match=complaint):
        split_options(f"postgresql://h/app?{query}")
    with pytest.raises(BadConfiguration, match=f"^DATABASE_URL: {complaint}$"):
        await connect(f"postgresql://h/app?{query}")


def test_a_query_string_may_be_a_part_of_the_password() -> None:
    dsn = "postgresql://u:p?connect_timeout=x@h/app"

    assert split_options(dsn) == (dsn, UrlOptions())


def test_several_hosts_are_tried_in_any_order_when_the_url_says_so() -> None:
    hosts = ",".join(f"h{n}" for n in range(20))
    query = f"host={hosts}&load_balance_hosts=random"

    orders = {tuple(Hosts(f"postgresql:///app?{query}")._order) for _ in range(5)}

    assert len(orders) > 1


# -- what is left out -------------------------------------------------------------------------


def test_a_parameter_that_is_left_out_is_named_once_without_its_value() -> None:
    dsn = "postgresql://u:p@h:1/app?channel_binding=require&connection_limit=5&scram_client_key=k"
    with capture_logs() as entries:
        Hosts(dsn)
        Hosts(dsn)

    assert entries == [
        {
            "event": "url_parameters_ignored",
            "log_level": "warning",
            "host": "h:1",
            "parameters": "channel_binding, connection_limit, scram_client_key",
        }
    ]


def test_a_parameter_that_guards_nothing_is_no_warning() -> None:
    with capture_logs() as entries:
        Hosts("postgresql://h/app?connection_limit=5&schema=tenant")

    assert [entry["log_level"] for entry in entries] == ["info"]


def test_nothing_is_said_where_nothing_is_lost() -> None:
    with capture_logs() as entries:
        Hosts(
            "postgresql://h/app?channel_binding=prefer&gssencmode=disable&sslsni=1&schema=public"
            "&pgbouncer=true&connect_timeout=3&fallback_application_name=x&client_encoding=UTF8"
        )

    assert entries == []


# -- a bracket --------------------------------------------------------------------------------


@pytest.mark.parametrize("dsn", ["postgresql://u:pass[word@h/app", "postgresql://["])
async def test_a_bare_bracket_is_one_line(dsn: str) -> None:
    with pytest.raises(BadConfiguration, match="not a usable URL") as refusal:
        await connect(dsn)
    assert "word" not in str(refusal.value).replace("password", "")
    with pytest.raises(Permanent, match="can't be used"):
        async with connect_postgres(dsn):
            pytest.fail("it opened")
    assert describe_dsn(dsn) == "the given address"
