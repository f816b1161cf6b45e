"""SQLSTATE to `PgworkerError`: the only place that knows both."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import asyncpg

from pgworker.errors import (
    BadConfiguration,
    DatabaseUnreachable,
    LeaseLost,
    NotRetryable,
    PgworkerError,
    SchemaMismatch,
    UnknownClient,
    UnusableTable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# The class PW is ours (sql/README.md); the others are PostgreSQL's, appendix A of its manual.
_BY_SQLSTATE: dict[str, type[PgworkerError]] = {
    "PW001": LeaseLost,
    "PW002": NotRetryable,
    "PW003": UnknownClient,
    "PW004": PgworkerError,
    "PW010": UnusableTable,
}
_MISSING_SCHEMA = {"42P01", "42883", "3F000", "42703"}
# Connection lost, shutting down, out of resources, rolled back by a conflict; time-outs, locks
# not had, and a server that turned read-only (a fail-over): all of them pass.
_PASSING = ("08", "57P", "53", "40", "57014", "55P03", "25006")


def translate(error: Exception) -> PgworkerError | None:
    """Return what an error of asyncpg means to us, or None when it means nothing special."""
    if isinstance(error, asyncpg.PostgresError):
        sqlstate = error.sqlstate or ""
        message = str(error).partition("\n")[0]
        if sqlstate in _BY_SQLSTATE:
            return _BY_SQLSTATE[sqlstate](message)
        if sqlstate in _MISSING_SCHEMA:
            return SchemaMismatch(f"{message}: run pgworker db migrate")
        if sqlstate.startswith(_PASSING):
            return DatabaseUnreachable(f"the database can't do it now: {message}")
        if sqlstate.startswith("28"):
            return BadConfiguration(f"DATABASE_URL: the server refuses the login: {message}")
        if sqlstate == "42501":
            return BadConfiguration(f"DATABASE_URL: its role may not do this: {message}")
        if sqlstate.startswith("23"):
            return PgworkerError(f"the database refuses the row: {message}")
        return None
    if isinstance(error, asyncpg.InterfaceError | OSError | TimeoutError):
        return DatabaseUnreachable(f"the database can't be reached: {str(error) or 'timed out'}")
    return None


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise errors of asyncpg as ours; those that mean nothing special pass as they are."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        ours = translate(error)
        if ours is None:
            raise
        raise ours from error
