"""SQLSTATEs by what they mean to us (PostgreSQL 18, appendix A). The only list of them in Python.

A group is a tuple of beginnings: two characters are a class, five are one code. What a group leads
to is decided where the statement was sent: a lock that could not be had in time repeats a job's
statement, and ends a check.
"""

from __future__ import annotations

from typing import Final, TypeAlias

Group: TypeAlias = tuple[str, ...]

# -- what happened -----------------------------------------------------------------------------

CONNECTION_LOST: Final[Group] = ("08",)
NOT_CONNECTED: Final[Group] = ("08001", "08004")
TAKES_NO_WRITES: Final[Group] = ("25006",)
LOGIN_REFUSED: Final[Group] = ("28",)
NO_SUCH_DATABASE: Final[Group] = ("3D",)
ROLLED_BACK_BY_CONFLICT: Final[Group] = ("40",)
INSUFFICIENT_PRIVILEGE: Final[Group] = ("42501",)
OUT_OF_RESOURCES: Final[Group] = ("53",)
TOO_MANY_CONNECTIONS: Final[Group] = ("53300",)
NOT_IN_THAT_STATE: Final[Group] = ("55",)
LOCK_NOT_AVAILABLE: Final[Group] = ("55P03",)
OPERATOR_INTERVENED: Final[Group] = ("57",)
QUERY_CANCELED: Final[Group] = ("57014",)
SESSION_ENDED: Final[Group] = ("57P",)
STARTING_OR_STOPPING: Final[Group] = ("57P03",)
SYSTEM_ERROR: Final[Group] = ("58",)
IO_ERROR: Final[Group] = ("58030",)
# Poolers say it when their server is away, or when they don't know the tenant yet. The rest of the
# class is corrupted data, which never passes.
INTERNAL_ERROR: Final[Group] = ("XX000",)

CONSTRAINT_VIOLATED: Final[Group] = ("23",)
UNIQUE_VIOLATION: Final[Group] = ("23505",)
DUPLICATE_DATABASE: Final[Group] = ("42P04",)
UNDEFINED_TABLE: Final[Group] = ("42P01",)
UNDEFINED_SCHEMA: Final[Group] = ("3F000",)
UNDEFINED_COLUMN: Final[Group] = ("42703",)
UNDEFINED_FUNCTION: Final[Group] = ("42883",)
# "Cannot run inside a transaction block", and a procedure that commits inside of one.
NOT_IN_A_TRANSACTION: Final[Group] = ("25001", "2D000")
# A prepared statement that isn't there, or is there already: another session has answered.
PREPARED_STATEMENT_MIXED_UP: Final[Group] = ("26000", "42P05")

# -- ours (sql/README.md) ----------------------------------------------------------------------

LEASE_LOST: Final = "PW001"
NOT_RETRYABLE: Final = "PW002"
UNKNOWN_CLIENT: Final = "PW003"
UNKNOWN_WORKFLOW: Final = "PW004"
IDEMPOTENCY_CONFLICT: Final = "PW006"
# Raised by the script of a smoke assertion, in the tenant's database.
NOT_TRUE: Final = "PW900"

# -- what follows from it ----------------------------------------------------------------------

# The very same statement may work later.
PASSING: Final[Group] = (
    *CONNECTION_LOST,
    *TAKES_NO_WRITES,
    *ROLLED_BACK_BY_CONFLICT,
    *OUT_OF_RESOURCES,
    *LOCK_NOT_AVAILABLE,
    *SESSION_ENDED,
    *IO_ERROR,
)
# A check that only reads may work later. Its transaction is read-only: 25006 means that the check
# itself writes, and 57014 that it met its time-out.
CHECK_PASSING: Final[Group] = (
    *(each for each in PASSING if each not in TAKES_NO_WRITES),
    *QUERY_CANCELED,
)
# Logging in may work later.
LOGIN_PASSING: Final[Group] = (
    *CONNECTION_LOST,
    *OUT_OF_RESOURCES,
    *SESSION_ENDED,
    *INTERNAL_ERROR,
)
# Creating or dropping a database or role may work later: another session uses it, or makes it too.
DATABASE_COMMAND_PASSING: Final[Group] = (
    *PASSING,
    *NOT_IN_THAT_STATE,
    *OPERATOR_INTERVENED,
    *UNIQUE_VIOLATION,
    *DUPLICATE_DATABASE,
    *INTERNAL_ERROR,
)
# Two sessions made the same database or role at once, and the other one was first.
ALREADY_THERE: Final[Group] = (*DUPLICATE_DATABASE, *UNIQUE_VIOLATION)
# A program in the middle could not reach the server: the statement did not run.
NEVER_SENT: Final[Group] = (
    *STARTING_OR_STOPPING,
    *TOO_MANY_CONNECTIONS,
    *LOGIN_REFUSED,
    *NOT_CONNECTED,
)
# A connection to that server is of no more use: it is gone, or takes no writes now.
USELESS_CONNECTION: Final[Group] = (
    *CONNECTION_LOST,
    *TAKES_NO_WRITES,
    *SESSION_ENDED,
    *INTERNAL_ERROR,
)
# pgworker's own schema is missing, or is another version's.
SCHEMA_MISSING: Final[Group] = (
    *UNDEFINED_TABLE,
    *UNDEFINED_FUNCTION,
    *UNDEFINED_SCHEMA,
    *UNDEFINED_COLUMN,
)
# Not supported, no right, no such column: said of a statement as it is written, whatever its rows.
# A trigger may raise them all the same.
ABOUT_THE_STATEMENT: Final[Group] = ("0A", "42")

# What ends a statement of ours for now, in words for a person: the longest beginning counts.
OUTAGES: Final[dict[str, str]] = {
    "08": "the connection broke (shutdown, restart, pg_terminate_backend or the network)",
    "25006": "the server takes no writes (it is a standby in recovery, or read-only)",
    "40": "rolled back because of other transactions",
    "40001": "serialisation failure",
    "40P01": "deadlock",
    "53": "the server is out of resources",
    "53100": "the server's disk is full",
    "53300": "the server takes no more connections",
    "55P03": "a lock could not be had in time",
    "57014": "the statement was cancelled (statement_timeout, or an administrator)",
    "57P": "the server ended the session",
    "57P01": "the server ended the session (shutdown, restart or pg_terminate_backend)",
    "57P02": "the server ended all sessions: one of its processes crashed",
    "57P03": "the server is starting up, shutting down or in recovery",
    "58": "the server can't use its files",
    "XX000": "the server, or a pooler, failed",
}


def describe_outage(sqlstate: str) -> str | None:
    """Return what a passing trouble of the server is; None when the code says no such thing."""
    beginnings = [each for each in OUTAGES if sqlstate.startswith(each)]
    return OUTAGES[max(beginnings, key=len)] if beginnings else None


def belongs_to(sqlstate: str | None, group: Group) -> bool:
    """Return whether a code belongs to a group; None belongs to none."""
    return sqlstate is not None and sqlstate.startswith(group)
