"""Everything that pgworker raises on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pgworker.models import ErrorKind

if TYPE_CHECKING:
    from datetime import timedelta


class PgworkerError(Exception):
    """Base of everything that pgworker raises on purpose. The message is one line for a person."""


# -- what a phase may raise -------------------------------------------------------------------


class JobError(PgworkerError):
    """A phase couldn't finish; `kind` alone decides what happens to its job."""

    kind: ClassVar[ErrorKind]


class Transient(JobError):
    """It may work later: the server is busy, restarting or not reachable."""

    kind = ErrorKind.TRANSIENT


class Throttled(JobError):
    """The provider asks us to send less (HTTP 429).

    Attributes:
        retry_after: how long it asks us to wait.
    """

    kind = ErrorKind.THROTTLED

    def __init__(self, message: str, retry_after: timedelta) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OutcomeUnknown(JobError):
    """The request may have taken effect: look up before repeating it."""

    kind = ErrorKind.UNKNOWN


class CredentialRefused(JobError):
    """The provider refuses our credential (HTTP 401, 403).

    Attributes:
        credential: a name that doesn't reveal it; its breaker opens.
    """

    kind = ErrorKind.AUTH

    def __init__(self, message: str, credential: str) -> None:
        super().__init__(message)
        self.credential = credential


class QuotaExceeded(JobError):
    """The organisation must buy or free something first (HTTP 402, project limit)."""

    kind = ErrorKind.QUOTA


class Permanent(JobError):
    """Trying again can't help: a person must look."""

    kind = ErrorKind.PERMANENT


class PasswordRefused(Permanent):
    """The tenant's server doesn't take the password that we hold (SQLSTATE 28P01)."""


class MigrationRefused(Permanent):
    """The canonical migrations can't be used as they are, or don't fit the tenant's history."""


class MigrationFailed(Permanent):
    """A statement of a canonical migration failed; its file was rolled back.

    Attributes:
        file: name of the file.
        statement: number of the statement in the file, from 1; None when it isn't known.
        line: line of the file, from 1; None when it isn't known.
        sqlstate: five characters, or None.
    """

    def __init__(
        self,
        detail: str,
        *,
        file: str,
        statement: int | None = None,
        line: int | None = None,
        sqlstate: str | None = None,
    ) -> None:
        where = file if line is None else f"{file}:{line}"
        nth = "" if statement is None else f" (statement {statement})"
        code = "" if sqlstate is None else f" [{sqlstate}]"
        super().__init__(f"{where}{nth}: {detail}{code}")
        self.file = file
        self.statement = statement
        self.line = line
        self.sqlstate = sqlstate


class SmokeCheckFailed(Permanent):
    """The tenant is there but doesn't work as it should; the message names the check."""


# -- what the queue may raise -----------------------------------------------------------------


class LeaseLost(PgworkerError):
    """Another worker holds the job now (SQLSTATE PW001): stop and write nothing."""


class ResultRefused(PgworkerError):
    """The database refuses to store the result of one job, and takes those of others.

    Attributes:
        may_pass: the very same result may be stored later.
    """

    def __init__(self, message: str, *, may_pass: bool) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class NotRetryable(PgworkerError):
    """The client has no failed or cancelled job (SQLSTATE PW002)."""


class UnknownClient(PgworkerError):
    """No client has that id or name (SQLSTATE PW003)."""


class UnknownWorkflow(PgworkerError):
    """There is no workflow of that name (SQLSTATE PW004)."""


class IdempotencyConflict(PgworkerError):
    """The Idempotency-Key was used for a different request before (SQLSTATE PW006)."""


class UnstorableText(PgworkerError):
    """The platform's database has an encoding that lacks a character of the request."""


class BadCursor(PgworkerError):
    """A page's cursor isn't one that pgworker made."""


class TooManyStreams(PgworkerError):
    """This process serves as many streams of events as it may."""


class NotDeleted(PgworkerError):
    """A tenant that was to be deleted has an owner, or isn't known; or deleting it failed."""


# -- configuration, database ------------------------------------------------------------------


class BadConfiguration(PgworkerError):
    """A setting can't be used: a process ends with exit code 78."""


class DatabaseUnreachable(PgworkerError):
    """PostgreSQL can't be reached: a process ends with exit code 69."""


class StatementRefused(PgworkerError):
    """PostgreSQL refuses a statement, for a reason that has no class of its own here."""


class SchemaMismatch(PgworkerError):
    """pgworker's own schema is older or newer than this program, or was changed."""


class UnusableTable(PgworkerError):
    """An existing table can't be adopted; the message has a line for each thing to change."""


class TableLocked(PgworkerError):
    """A lock that a migration needs could not be had; the message names who holds it."""
