"""Connections to the platform's database."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import asyncpg

from pgworker.db.connection import OwnConnection
from pgworker.db.encoding import replace_unstorable
from pgworker.db.hosts import Hosts, NoHostTakesWrites
from pgworker.db.sqlstate import LOGIN_REFUSED, NO_SUCH_DATABASE, Group, belongs_to
from pgworker.db.translation import DATABASE_ERRORS, ends_the_session, translate, translated
from pgworker.db.url import UnusableParameter
from pgworker.errors import BadConfiguration, DatabaseUnreachable, PgworkerError
from pgworker.telemetry import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Connection: TypeAlias = (
        asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    )

STATEMENT_TIMEOUT = timedelta(seconds=30)
# For closing a connection: we have all answers by then, and the network may be silent.
CLOSE_TIMEOUT = timedelta(seconds=5)

log = get_logger()


async def connect(
    database: str | Hosts, *, application_name: str = "pgworker"
) -> asyncpg.Connection:
    """Open one connection, with our codecs.

    Args:
        database: its URL; or its hosts, for callers that connect again: they remember which
            of them answered.
        application_name: as `pg_stat_activity` shows it.

    Raises:
        BadConfiguration: the URL, the login or the database is wrong; asking again won't help.
        DatabaseUnreachable: there is no answer, or no host takes writes; names the hosts, never
            the password.
    """
    hosts = Hosts(database) if isinstance(database, str) else database
    try:
        connection = await hosts.connect(
            command_timeout=STATEMENT_TIMEOUT.total_seconds(),
            # A transaction pooler may stand in front: no statement survives a transaction.
            statement_cache_size=0,
            server_settings={"application_name": application_name},
        )
        await set_codecs(connection)
    except UnusableParameter as error:
        raise BadConfiguration(f"DATABASE_URL: {error}") from None
    except ValueError:
        # Some of asyncpg's own errors are ValueErrors, and DATABASE_ERRORS as well: this first.
        raise _unusable_url() from None
    except DATABASE_ERRORS as error:
        raise _connect_error(hosts.dsn, error) from error
    return connection


@asynccontextmanager
async def connected(
    database: str | Hosts, *, application_name: str = "pgworker"
) -> AsyncIterator[asyncpg.Connection]:
    """Lend a connection of its own for the block, made as by `connect`, and close it.

    Raises:
        PgworkerError: what went wrong in the block, where it was an error of asyncpg.
    """
    connection = await connect(database, application_name=application_name)
    try:
        with translated():
            yield connection
    finally:
        await close(connection)


async def close(connection: asyncpg.Connection) -> None:
    """Close a connection, in bounded time."""
    try:
        await connection.close(timeout=CLOSE_TIMEOUT.total_seconds())
    except DATABASE_ERRORS:
        connection.terminate()


class Pool:
    """A few connections, for statements that must not hang.

    Everything ends in bounded time: `timeout` holds for getting a connection, for each statement
    and for giving the connection back. A connection that was opened before the newest sign of a
    dead server, a fail-over or a restart isn't lent again.

    Errors of asyncpg leave it as ours (`db.translation`), so that no caller can mistake an outage
    for a bug.
    """

    def __init__(self, connections: asyncpg.Pool, *, timeout: timedelta) -> None:
        """Take the connections, made with `timeout` as their `command_timeout`."""
        self._connections = connections
        self._timeout = timeout.total_seconds()
        self._trusted_since = 0.0

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Run a statement; return its rows."""
        async with self.acquire() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(query, *arguments)
        return rows

    async def fetchrow(self, query: str, *arguments: object) -> asyncpg.Record | None:
        """Run a statement; return its first row."""
        async with self.acquire() as connection:
            return await connection.fetchrow(query, *arguments)

    async def fetchval(self, query: str, *arguments: object) -> Any:
        """Run a statement; return the first value of its first row."""
        async with self.acquire() as connection:
            return await connection.fetchval(query, *arguments)

    async def execute(self, query: str, *arguments: object) -> str:
        """Run a statement; return its command tag."""
        async with self.acquire() as connection:
            tag: str = await connection.execute(query, *arguments)
        return tag

    @asynccontextmanager
    async def acquire(self, *, timeout: float | None = None) -> AsyncIterator[Connection]:
        """Lend a connection.

        Args:
            timeout: seconds for getting it and for giving it back, each; by default the pool's.

        Raises:
            DatabaseUnreachable: none was free or could be opened in time, or it broke in the block.
            PgworkerError: what else went wrong in the block, where it was an error of asyncpg.
        """
        seconds = timeout or self._timeout
        with translated():
            connection = await self._trusted(seconds)
            try:
                yield connection
            except DATABASE_ERRORS as error:
                if ends_the_session(error):
                    # The others go the same way: to a server that is gone, or takes no writes now.
                    self._trusted_since = time.monotonic()
                raise
            finally:
                try:
                    await self._connections.release(connection, timeout=seconds)
                except DATABASE_ERRORS:
                    # asyncpg has closed it. The caller's statements have succeeded nevertheless.
                    self._trusted_since = time.monotonic()

    async def _trusted(self, seconds: float) -> Connection:
        while True:
            connection: Connection = await self._connections.acquire(timeout=seconds)
            if connection.opened_at >= self._trusted_since:
                return connection
            connection.terminate()
            await self._connections.release(connection)


@asynccontextmanager
async def open_pool(
    dsn: str,
    *,
    max_size: int = 8,
    application_name: str = "pgworker",
    through_pooler: bool = False,
    timeout: timedelta = STATEMENT_TIMEOUT,
) -> AsyncIterator[Pool]:
    """Open a small pool; connections are made when they are needed.

    Args:
        dsn: of the platform's database.
        max_size: connections at most.
        application_name: as `pg_stat_activity` shows it.
        through_pooler: a pooler in transaction mode stands in front: no prepared statement
            outlives a transaction there, so none is kept; nor does it take our settings.
        timeout: for a statement, for a connection, and for an idle transaction of ours: the
            locks of a worker that froze in the middle of one are free again after it.

    Raises:
        BadConfiguration, DatabaseUnreachable: as `connect`. Later, when it has been open, every
            failure to connect is the latter: a login may be refused while it is being changed.
    """
    hosts = Hosts(dsn)
    # One connection first: its errors say what to do, those of `connect_again` are outages.
    async with connected(hosts, application_name=application_name):
        pass
    settings = {"application_name": application_name}
    through_pooler = through_pooler or hosts.url_options.is_pooled
    if not through_pooler:
        settings["idle_in_transaction_session_timeout"] = f"{timeout.total_seconds() * 1000:.0f}"

    async def connect_again(_: str | None, **options: Any) -> asyncpg.Connection:
        before = hosts.current
        try:
            connection = await hosts.connect(**options)
            await set_codecs(connection)
        except DATABASE_ERRORS as error:
            raise DatabaseUnreachable(str(_connect_error(dsn, error))) from error
        if hosts.current != before:
            log.warning("database_host_changed", host=hosts.current, before=before)
        return connection

    connections = asyncpg.create_pool(
        connect=connect_again,
        connection_class=OwnConnection,
        min_size=0,
        max_size=max_size,
        command_timeout=timeout.total_seconds(),
        max_inactive_connection_lifetime=60,
        statement_cache_size=0 if through_pooler else 100,
        server_settings=settings,
        reset=_keep_session,
    )
    await connections
    try:
        yield Pool(connections, timeout=timeout)
    finally:
        # When it can't close the connections in time, asyncpg terminates them.
        with suppress(*DATABASE_ERRORS):
            await asyncio.wait_for(connections.close(), CLOSE_TIMEOUT.total_seconds())


async def set_codecs(connection: Connection) -> None:
    """Let jsonb be Python values, in both directions."""
    encoding = connection.encoding
    await connection.set_type_codec(
        "jsonb",
        encoder=json.dumps if encoding == "UTF8" else _jsonb_writer(encoding),
        decoder=_read_jsonb,
        schema="pg_catalog",
    )


def _jsonb_writer(encoding: str) -> Callable[[Any], str]:
    """Return what writes jsonb for a database that isn't Unicode.

    Without escapes: the server refuses those of characters that its encoding lacks, and in
    SQL_ASCII all of them.
    """
    return lambda value: replace_unstorable(json.dumps(value, ensure_ascii=False), encoding)


def _read_jsonb(text: str) -> Any:
    # Almost every checkpoint: this costs a tenth of parsing it.
    return {} if text == "{}" else json.loads(text)


def describe_dsn(dsn: str) -> str:
    """Return host, port and database of a DSN, for messages; never the password."""
    try:
        parts = urlsplit(dsn)
    except ValueError:
        return "the given address"
    host = parts.netloc.rpartition("@")[2]
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        # An unescaped `/`, `?` or `#` in the password ends what urlsplit takes for the login:
        # what looks like host or path is the rest of the password then.
        return "the given address"
    return f"{host or 'the local socket'}{parts.path}"


async def _keep_session(_: Connection) -> None:
    """Leave a connection as it is between two callers: none of ours changes a session's state.

    asyncpg's own reset would cost a round trip after each statement, which may fail as well.
    """


def _unusable_url() -> BadConfiguration:
    # Without the error's own text: it may hold a part of the password, which urllib took for the
    # port.
    return BadConfiguration(
        "DATABASE_URL: not a usable URL like postgresql://user:password@host:5432/database "
        "(special characters of the password must be percent-encoded)"
    )


# What a server that answered refuses until the setting is corrected. The first that matches.
_REFUSALS: tuple[tuple[Group, str], ...] = (
    (NO_SUCH_DATABASE, "the server at {where} has no such database"),
    (LOGIN_REFUSED, "the server at {where} refuses the login of user {user}: {message}"),
)


def _connect_error(dsn: str, error: Exception) -> PgworkerError:
    where = describe_dsn(dsn)
    if isinstance(error, NoHostTakesWrites):
        return DatabaseUnreachable(f"PostgreSQL at {where} can't be used: {error}")
    if isinstance(error, asyncpg.PostgresError) and not isinstance(
        translate(error), DatabaseUnreachable
    ):
        texts = (text for group, text in _REFUSALS if belongs_to(error.sqlstate, group))
        refusal = next(texts, "{where}: {message}").format(
            where=where,
            user=urlsplit(dsn).username or "?",
            message=str(error).partition("\n")[0],
        )
        return BadConfiguration(f"DATABASE_URL: {refusal}")
    return DatabaseUnreachable(f"PostgreSQL at {where} can't be reached: {_describe(error)}")


def _describe(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason}"
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        # asyncio's own message repeats the address. The numbers of getaddrinfo are negative.
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    if isinstance(error, TimeoutError) and not str(error):
        return "timed out"
    return str(error) or repr(error)
