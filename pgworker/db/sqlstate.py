"""SQLSTATE to `PgworkerError`: the only place that knows both."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import asyncpg

from pgworker.errors import (
    BadConfiguration,
    DatabaseUnreachable,
    KeyReused,
    LeaseLost,
    NotRetryable,
    PgworkerError,
    SchemaMismatch,
    UnknownClient,
    UnknownWorkflow,
    UnusableTable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# Everything that asyncpg raises for what the other side did. InternalClientError is what it says
# of a statement that meets a connection whose server has just said farewell.
DATABASE_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)

# The class PW is ours (sql/README.md); the others are PostgreSQL's, appendix A of its manual.
_BY_SQLSTATE: dict[str, type[PgworkerError]] = {
    "PW001": LeaseLost,
    "PW002": NotRetryable,
    "PW003": UnknownClient,
    "PW004": UnknownWorkflow,
    "PW006": KeyReused,
    "PW010": UnusableTable,
}
# What asyncpg says of it is true and names no cause; who waits for what decides which of its
# errors it is, so that one sentence tells them all.
_BROKE = "the connection broke (shutdown, restart, pg_terminate_backend or the network)"
_MISSING_SCHEMA = {"42P01", "42883", "3F000", "42703"}
# A prepared statement that isn't there, or is there already.
_OF_ANOTHER_SESSION = {"26000", "42P05"}
# What passes, in words for a person: the longest beginning of the SQLSTATE that is here counts.
_PASSING = {
    "08": _BROKE,
    "25006": "the server takes no writes (it is a standby in recovery, or read-only)",
    "40": "rolled back because of other transactions",
    "40001": "serialisation failure",
    "40P01": "deadlock",
    "53": "the server is out of resources",
    "53100": "the server's disk is full",
    "53300": "the server takes no more connections",
    "55P03": "a lock wasn't to be had in time",
    "57014": "the statement was cancelled (statement_timeout, or an administrator)",
    "57P": "the server ended the session",
    "57P01": "the server ended the session (shutdown, restart or pg_terminate_backend)",
    "57P02": "the server ended all sessions: one of its processes crashed",
    "57P03": "the server is starting up, shutting down or in recovery",
    "58": "the server can't use its files",
    # PostgreSQL's "internal error"; poolers say it when their server is away.
    "XX000": "the server, or a pooler, failed",
}
_ENDS_THE_SESSION = ("08", "25006", "57P", "XX000")


def translate(error: Exception) -> PgworkerError | None:
    """Return what an error of asyncpg means to us, or None when it means nothing special."""
    if isinstance(error, asyncpg.PostgresError):
        sqlstate = error.sqlstate or ""
        message = str(error).partition("\n")[0]
        if sqlstate in _BY_SQLSTATE:
            return _BY_SQLSTATE[sqlstate](message)
        if sqlstate in _MISSING_SCHEMA:
            return SchemaMismatch(f"{message}: run pgworker db migrate")
        if sqlstate in _OF_ANOTHER_SESSION:
            return BadConfiguration(
                "DATABASE_URL leads through a pooler in transaction mode: set PGWORKER_LISTEN_URL "
                f"to a direct connection, or to off ({message})"
            )
        beginning = max(
            (each for each in _PASSING if sqlstate.startswith(each)), key=len, default=""
        )
        if beginning:
            return DatabaseUnreachable(f"{_PASSING[beginning]}: {message}")
        if sqlstate.startswith("28"):
            return BadConfiguration(f"DATABASE_URL: the server refuses the login: {message}")
        if sqlstate == "42501":
            return BadConfiguration(f"DATABASE_URL: its role may not do this: {message}")
        if sqlstate.startswith("23"):
            return PgworkerError(f"the database refuses the row: {message}")
        return None
    if isinstance(error, TimeoutError):
        return DatabaseUnreachable("the database did not answer in time")
    if not ends_the_session(error):
        return None
    if isinstance(error, OSError):
        return DatabaseUnreachable(f"the database can't be reached: {error}")
    return DatabaseUnreachable(f"{_BROKE}: {error}")


def ends_the_session(error: Exception) -> bool:
    """Tell whether connections to that server are of no more use: gone, silent, or read-only."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_ENDS_THE_SESSION)
    # asyncpg's ValueErrors are about what we wanted to send.
    return isinstance(error, DATABASE_ERRORS) and not isinstance(error, ValueError)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise errors of asyncpg as ours; those that mean nothing special pass as they are."""
    try:
        yield
    except DATABASE_ERRORS as error:
        ours = translate(error)
        if ours is None:
            raise
        raise ours from error
