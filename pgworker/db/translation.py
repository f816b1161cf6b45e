"""Translates asyncpg's errors into ours: the only place that knows both."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import asyncpg

from pgworker.db import sqlstate
from pgworker.errors import (
    BadConfiguration,
    DatabaseUnreachable,
    IdempotencyConflict,
    LeaseLost,
    NotRetryable,
    PgworkerError,
    SchemaMismatch,
    StatementRefused,
    UnknownClient,
    UnknownWorkflow,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# Everything that asyncpg raises for what the server or the network did. InternalClientError is
# raised for a statement on a connection that the server has just closed.
DATABASE_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)

_OURS: dict[str, type[PgworkerError]] = {
    sqlstate.LEASE_LOST: LeaseLost,
    sqlstate.NOT_RETRYABLE: NotRetryable,
    sqlstate.UNKNOWN_CLIENT: UnknownClient,
    sqlstate.UNKNOWN_WORKFLOW: UnknownWorkflow,
    sqlstate.IDEMPOTENCY_CONFLICT: IdempotencyConflict,
}
# For an error that is none of ours and no outage: the first that matches.
_OTHERS: tuple[tuple[sqlstate.Group, type[PgworkerError], str], ...] = (
    (sqlstate.SCHEMA_MISSING, SchemaMismatch, "{message}: run pgworker db migrate"),
    (
        sqlstate.PREPARED_STATEMENT_MIXED_UP,
        BadConfiguration,
        (
            "DATABASE_URL leads through a pooler in transaction mode: set PGWORKER_LISTEN_URL to a "
            "direct connection, or to off ({message})"
        ),
    ),
    (
        sqlstate.LOGIN_REFUSED,
        BadConfiguration,
        "DATABASE_URL: the server refuses the login: {message}",
    ),
    (
        sqlstate.INSUFFICIENT_PRIVILEGE,
        BadConfiguration,
        "DATABASE_URL: its role may not do this: {message}",
    ),
    (sqlstate.CONSTRAINT_VIOLATED, PgworkerError, "the database refuses the row: {message}"),
)


# Where the server refuses a row by a policy's `with check`, as if a right were missing; its message
# may be in any language.
POLICY_CHECK = "ExecWithCheckOptions"


def translate(error: Exception) -> PgworkerError | None:
    """Return what an error of asyncpg means to us, or None when it means nothing special."""
    if isinstance(error, asyncpg.DataError) and error.severity_en is None:
        # Not the server's, which names a severity, but asyncpg's own: a value that we wanted to
        # send doesn't fit its parameter. That is a bug.
        return None
    if isinstance(error, asyncpg.PostgresError):
        return _translate_refusal(error.sqlstate or "", str(error).partition("\n")[0])
    if isinstance(error, TimeoutError):
        return DatabaseUnreachable("the database did not answer in time")
    if not ends_the_session(error):
        return None
    if isinstance(error, OSError):
        return DatabaseUnreachable(f"the database can't be reached: {error}")
    # asyncpg's message names no cause, and differs with what was waited for.
    return DatabaseUnreachable(f"{sqlstate.OUTAGES['08']}: {error}")


def _translate_refusal(code: str, message: str) -> PgworkerError:
    if code in _OURS:
        return _OURS[code](message)
    outage = sqlstate.describe_outage(code)
    if outage is not None:
        return DatabaseUnreachable(f"{outage}: {message}")
    for group, kind, text in _OTHERS:
        if sqlstate.belongs_to(code, group):
            return kind(text.format(message=message))
    return StatementRefused(f"{message} [{code}]")


def ends_the_session(error: Exception) -> bool:
    """Return whether connections to that server are useless now: gone, silent, or read-only."""
    if isinstance(error, asyncpg.PostgresError):
        return sqlstate.belongs_to(error.sqlstate, sqlstate.USELESS_CONNECTION)
    # asyncpg's ValueErrors are about what we wanted to send.
    return isinstance(error, DATABASE_ERRORS) and not isinstance(error, ValueError)


def concerns_rows(error: PgworkerError) -> bool:
    """Return whether a statement over several jobs was refused because of one of its rows.

    A trigger, check or lock of the platform may refuse any row with any SQLSTATE. The session goes
    on: FATAL and PANIC would end it. What the server says of the statement as such (a right that is
    missing, say) is told apart by where it was raised: in no function other than ours.
    """
    cause = error.__cause__
    if not isinstance(cause, asyncpg.PostgresError) or cause.severity_en != "ERROR":
        return False
    if not sqlstate.belongs_to(cause.sqlstate, sqlstate.ABOUT_THE_STATEMENT):
        return True
    if cause.server_source_function == POLICY_CHECK:
        return True
    return not (cause.context or "").startswith(("SQL statement", "PL/pgSQL function pgworker."))


def is_lock_timeout(error: PgworkerError) -> bool:
    """Return whether our statement gave up waiting for a lock that another session holds."""
    cause = error.__cause__
    return isinstance(cause, asyncpg.PostgresError) and sqlstate.belongs_to(
        cause.sqlstate, sqlstate.LOCK_NOT_AVAILABLE
    )


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
