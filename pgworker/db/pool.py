"""Connections to the platform's database."""

from __future__ import annotations

import json
import ssl
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import asyncpg

from pgworker.db.sqlstate import translate
from pgworker.errors import BadConfiguration, DatabaseUnreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Connection: TypeAlias = (
        asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    )
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]

CONNECT_TIMEOUT = timedelta(seconds=10)
STATEMENT_TIMEOUT = timedelta(seconds=30)


async def connect(dsn: str, *, application_name: str = "pgworker") -> asyncpg.Connection:
    """Open one connection, with our codecs.

    Raises:
        BadConfiguration: the URL, the login or the database is wrong; asking again won't help.
        DatabaseUnreachable: nobody answers there; names the host, never the password.
    """
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_TIMEOUT.total_seconds(),
            # A transaction pooler may stand in front: no statement survives a transaction.
            statement_cache_size=0,
            server_settings={"application_name": application_name},
        )
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        raise _connect_error(dsn, error) from error
    except ValueError:
        # The text of the error may hold a part of the password, as an error of urllib does
        # that took it for the port.
        raise BadConfiguration(
            "DATABASE_URL: not a usable URL like postgresql://user:password@host:5432/database "
            "(special characters of the password must be percent-encoded)"
        ) from None
    except asyncpg.InterfaceError as error:
        raise _connect_error(dsn, error) from error
    await set_codecs(connection)
    return connection


@asynccontextmanager
async def open_pool(
    dsn: str,
    *,
    max_size: int = 8,
    application_name: str = "pgworker",
    through_pooler: bool = False,
) -> AsyncIterator[Pool]:
    """Open a small pool; connections are made when they are needed.

    Args:
        dsn: of the platform's database.
        max_size: connections at most.
        application_name: as `pg_stat_activity` shows it.
        through_pooler: a pooler in transaction mode stands in front: no prepared statement
            outlives a transaction there, so none is kept.

    Raises:
        BadConfiguration, DatabaseUnreachable: as `connect`.
    """
    # A first connection of its own gives errors that name what to do.
    probe = await connect(dsn, application_name=application_name)
    await probe.close()
    pool = asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=max_size,
        timeout=CONNECT_TIMEOUT.total_seconds(),
        command_timeout=STATEMENT_TIMEOUT.total_seconds(),
        max_inactive_connection_lifetime=60,
        init=set_codecs,
        statement_cache_size=0 if through_pooler else 100,
        server_settings={"application_name": application_name},
    )
    async with pool:
        yield pool


async def set_codecs(connection: Connection) -> None:
    """Carry jsonb as Python values."""
    await connection.set_type_codec(
        "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
    )


def place(dsn: str) -> str:
    """Return host, port and database of a DSN, for messages; never the password."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        # A `/`, `?` or `#` that the password holds unescaped ends the part that we may hide:
        # what looks like host or path is the rest of the password then.
        return "the given address"
    return f"{host or 'the local socket'}{parts.path}"


def _connect_error(dsn: str, error: Exception) -> Exception:
    where = place(dsn)
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return BadConfiguration(f"DATABASE_URL: the server at {where} has no such database")
    if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "").startswith("28"):
        user = urlsplit(dsn).username or "?"
        return BadConfiguration(
            f"DATABASE_URL: the server at {where} refuses the login of user {user}: "
            f"{str(error).partition(chr(10))[0]}"
        )
    if isinstance(error, asyncpg.PostgresError) and not isinstance(
        translate(error), DatabaseUnreachable
    ):
        return BadConfiguration(f"DATABASE_URL: {where}: {error}")
    detail = "timed out" if isinstance(error, TimeoutError) and not str(error) else str(error)
    if isinstance(error, ssl.SSLError):
        detail = f"TLS failed: {error.reason}"
    return DatabaseUnreachable(f"PostgreSQL at {where} can't be reached: {detail or error!r}")
