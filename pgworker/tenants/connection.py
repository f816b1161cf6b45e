"""How SQL reaches a tenant: over PostgreSQL, or over the API of its provider."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from pgworker.db.sqlstate import NOT_TRUE, PASSING, belongs_to
from pgworker.errors import OutcomeUnknown, Permanent, Transient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgworker.db.sqlstate import Group


class StatementError(Exception):
    """The tenant's server refused a statement (never raised for a lost connection).

    Attributes:
        message: the server's primary message, without the statement.
        sqlstate: five characters.
        position: the character of the text that the server points at, from 1; None without one.
    """

    def __init__(self, message: str, *, sqlstate: str | None, position: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate
        self.position = position

    @property
    def is_passing(self) -> bool:
        """Whether the same statement may work later."""
        return belongs_to(self.sqlstate, PASSING)

    @property
    def first_line(self) -> str:
        """The message in one line, without the statement.

        When a quote is never closed, the server repeats the whole text behind it.
        """
        message = self.message
        if message.startswith("unterminated "):
            message = message.partition(" at or near ")[0]
        return message.partition("\n")[0]

    def to_job_error(
        self, what: str, *, passing: Group = PASSING, lasting: type[Permanent] = Permanent
    ) -> Transient | Permanent:
        """Return what the refusal means for a job.

        Args:
            what: the attempt in words; the message begins with it.
            passing: SQLSTATEs after which the same statement may work later (`Transient`).
            lasting: the class of the error after any other.
        """
        # A smoke assertion's own error says everything in its message.
        code = "" if self.sqlstate in {None, NOT_TRUE} else f" [{self.sqlstate}]"
        kind = Transient if belongs_to(self.sqlstate, passing) else lasting
        return kind(f"{what}: {self.first_line}{code}")


@contextmanager
def as_job_errors(
    what: str, *, passing: Group = PASSING, lasting: type[Permanent] = Permanent
) -> Iterator[None]:
    """Translate the errors of SQL that is safe to repeat, by `StatementError.to_job_error`.

    Raises:
        Transient: it may work later, or its answer was lost.
        Permanent: of the class `lasting`.
    """
    try:
        yield
    except StatementError as error:
        raise error.to_job_error(what, passing=passing, lasting=lasting) from error
    except OutcomeUnknown as error:
        # It is repeated anyway: whether it ran doesn't matter.
        raise Transient(f"{what}: {error}") from error


class TenantConnection(Protocol):
    """Sends SQL to one tenant.

    A way on which no session outlives a call has an attribute `keeps_session = False`; it is
    optional, so it isn't part of the protocol.

    Every method may raise `StatementError`, or a `JobError`: `Transient` when the tenant can't be
    reached, `OutcomeUnknown` when the connection was lost after the text may have arrived.
    """

    async def fetch(self, sql: str) -> list[dict[str, Any]]:
        """Run one statement and return its rows, with values as in JSON."""
        ...

    async def execute(self, sql: str) -> None:
        """Run a script of any number of statements, in the transactions that it contains.

        A script that fails leaves no transaction open.
        """
        ...
