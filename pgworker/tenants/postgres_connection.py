"""SQL for a tenant over PostgreSQL's own protocol."""

from __future__ import annotations

import json
from collections import deque
from contextlib import asynccontextmanager
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import asyncpg

from pgworker.db.hosts import Hosts, NoHostTakesWrites, split_hosts
from pgworker.db.pool import close
from pgworker.db.sqlstate import LOGIN_PASSING, belongs_to
from pgworker.db.translation import DATABASE_ERRORS
from pgworker.errors import JobError, OutcomeUnknown, PasswordRefused, Permanent, Transient
from pgworker.tenants.connection import StatementError
from pgworker.tenants.redaction import scrub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_COMMAND_TIMEOUT = timedelta(minutes=10)
# A loop may raise a million of them.
NOTICES_KEPT = 50


@asynccontextmanager
async def connect_postgres(dsn: str, **how: timedelta) -> AsyncIterator[PostgresTenantConnection]:
    """Connect to a tenant's database for the length of a block; arguments as `open_postgres`."""
    tenant = await open_postgres(dsn, **how)
    try:
        yield tenant
    finally:
        await tenant.close()


async def open_postgres(
    dsn: str,
    *,
    timeout: timedelta | None = None,
    command_timeout: timedelta = _COMMAND_TIMEOUT,
) -> PostgresTenantConnection:
    """Connect to a tenant's database, directly or through a pooler in session mode.

    Args:
        dsn: `postgresql://…`; never part of an error.
        timeout: for connecting to each host; by default as `Hosts.connect`.
        command_timeout: for each script; past it the server is asked to cancel.

    Raises:
        Transient: the server can't be reached, or takes no connections now.
        Permanent: it refuses user, password or database, or the DSN isn't one.
    """
    try:
        connection = await Hosts(dsn).connect(
            timeout=timeout,
            command_timeout=command_timeout.total_seconds(),
            # Poolers hand a session to others: named prepared statements wouldn't survive.
            statement_cache_size=0,
            server_settings={"application_name": "pgworker"},
        )
    except (*DATABASE_ERRORS, ValueError) as error:
        raise _connection_refused(error, dsn) from error
    tenant = PostgresTenantConnection(connection)
    try:
        await tenant.prepare()
    except BaseException as error:
        await tenant.close()
        if isinstance(error, OutcomeUnknown):
            raise Transient(f"{_host(dsn)} closed the connection at once") from error
        raise
    return tenant


class PostgresTenantConnection:
    """A `TenantConnection` over one asyncpg connection.

    A script that fails leaves no transaction open behind it.
    """

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._notices: deque[tuple[str, str]] = deque(maxlen=NOTICES_KEPT)
        connection.add_log_listener(self._on_notice)

    def take_notices(self) -> list[tuple[str, str]]:
        """Return the newest notices and warnings since the last call: severity and message."""
        taken = list(self._notices)
        self._notices.clear()
        return taken

    def _on_notice(self, _: object, message: asyncpg.PostgresLogMessage) -> None:
        if message.severity_en in {"NOTICE", "WARNING"}:
            self._notices.append((message.severity_en.lower(), scrub(message.message or "")))

    async def prepare(self) -> None:
        """Decode json and jsonb."""
        try:
            for name in ("json", "jsonb"):
                await self._connection.set_type_codec(
                    name, schema="pg_catalog", encoder=json.dumps, decoder=json.loads
                )
        except DATABASE_ERRORS as error:
            _raise_translated(error)

    async def fetch(self, sql: str) -> list[dict[str, Any]]:
        """Run one statement and return its rows; values as JSON would carry them."""
        try:
            rows = await self._connection.fetch(sql)
        except DATABASE_ERRORS as error:
            _raise_translated(error)
        return [{name: as_json(value) for name, value in row.items()} for row in rows]

    async def execute(self, sql: str) -> None:
        """Run a script of any number of statements, in the transactions that it contains."""
        try:
            await self._connection.execute(sql)
        except DATABASE_ERRORS as error:
            await self._roll_back()
            _raise_translated(error)

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended, by us or by the server."""
        return bool(self._connection.is_closed())

    async def close(self) -> None:
        """Close the connection in good order, within a time limit."""
        await close(self._connection)

    def terminate(self) -> None:
        """Close the socket at once, without waiting for the server."""
        self._connection.terminate()

    async def _roll_back(self) -> None:
        """End the transaction that the failed script may have begun."""
        # Not `if is_in_transaction()`: after a time-out that is the state before the script.
        if self._connection.is_closed():
            return
        try:
            await self._connection.execute("rollback")
        except DATABASE_ERRORS:
            # The transaction ends with the connection.
            self._connection.terminate()


def as_json(value: Any) -> Any:
    """Return a value of asyncpg as `to_jsonb` and the Management API represent it."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [as_json(item) for item in value]
        case dict():
            return {str(key): as_json(item) for key, item in value.items()}
        case asyncpg.Record():
            return {name: as_json(item) for name, item in value.items()}
        case datetime() | date() | time():
            return value.isoformat()
        case bytes():
            return f"\\x{value.hex()}"
        case _:
            return str(value)


def _raise_translated(error: BaseException) -> NoReturn:
    """Raise our error for that of a statement that was sent."""
    if isinstance(error, asyncpg.PostgresConnectionError) or not isinstance(
        error, asyncpg.PostgresError
    ):
        # TimeoutError is an OSError. The connection ended during the statement.
        what = "timed out" if isinstance(error, TimeoutError) else "was lost"
        raise OutcomeUnknown(f"the connection to the tenant {what} while it ran SQL") from error
    position = error.position
    raise StatementError(
        error.message or type(error).__name__,
        sqlstate=error.sqlstate,
        position=None if position is None else int(position),
    ) from error


def _connection_refused(error: BaseException, dsn: str) -> JobError:
    """Return our error for a connection that was not established; it never contains the DSN."""
    host = _host(dsn)
    if isinstance(error, asyncpg.InvalidPasswordError):
        return PasswordRefused(f"{host} refuses the tenant's password [28P01]: reset it")
    if isinstance(error, asyncpg.PostgresError):
        message = f"{host} refuses the connection: {error.message} [{error.sqlstate}]"
        # Out of connections, starting, shutting down; or a pooler without the tenant.
        passing = belongs_to(error.sqlstate, LOGIN_PASSING)
        return Transient(message) if passing else Permanent(message)
    if isinstance(error, asyncpg.InterfaceError | ValueError) and not isinstance(error, OSError):
        return Permanent(
            "the tenant's DSN can't be used: it must be like postgresql://user@host/db"
        )
    if isinstance(error, NoHostTakesWrites):
        return Transient(f"{host}: {error}")
    reason = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    return Transient(f"{host} can't be reached: {reason}")


def _host(dsn: str) -> str:
    try:
        if len(split_hosts(dsn)) > 1:
            return "the tenants' servers"
        parts = urlsplit(dsn)
        port = parts.port or 5432
    except ValueError:
        return "the tenant's server"
    return f"{parts.hostname or 'localhost'}:{port}"
