"""How SQL reaches a tenant: over PostgreSQL, or over the Management API's `database/query`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from pgworker.db.sqlstate import PASSING, belongs_to


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a migration.

    Attributes:
        sql: its text, without the trailing semicolon and outer white space.
        line: line of the file on which its first token stands, from 1.
    """

    sql: str
    line: int


class StatementError(Exception):
    """The tenant's server refused a statement (never raised for a lost connection).

    Attributes:
        message: the server's primary message, without the statement.
        sqlstate: five characters.
        position: character of the sent text the server points at, from 1; None when it doesn't.
    """

    def __init__(self, message: str, *, sqlstate: str | None, position: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate
        self.position = position

    @property
    def is_passing(self) -> bool:
        """Whether the very same statement may work later."""
        return belongs_to(self.sqlstate, PASSING)


class TenantConnection(Protocol):
    """Sends SQL to one tenant.

    Every method may raise `StatementError`, or a `JobError`: `Transient` when the tenant can't be
    reached, `OutcomeUnknown` when the connection was lost after the text may have arrived.
    """

    async def fetch(self, sql: str) -> list[dict[str, Any]]:
        """Run one statement and return its rows; values as JSON would carry them."""
        ...

    async def execute(self, sql: str) -> None:
        """Run a script of any number of statements, in the transaction that the script says.

        A script that fails leaves no transaction open behind it.
        """
        ...
