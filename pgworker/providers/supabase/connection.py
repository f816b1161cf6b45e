"""SQL for a tenant over the Management API's `POST /v1/projects/{ref}/database/query`.

Contract: it runs as `postgres` (no superuser) and keeps no session between calls. The answer is 201
with one set of rows. An error of the server is 400 with
`Failed to run sql query: ERROR:  42P01: …`. After about 50 seconds the answer is 544, while the
statement may continue and commit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pgworker.db.sqlstate import CONNECTION_LOST, NEVER_SENT, SESSION_ENDED, belongs_to
from pgworker.errors import OutcomeUnknown, Transient
from pgworker.providers.supabase.errors import ApiAnswer, raw_message
from pgworker.tenants.connection import StatementError
from pgworker.tenants.redaction import scrub

if TYPE_CHECKING:
    from pgworker.providers.supabase.api import ManagementApi

_ERROR = re.compile(r"(?:ERROR|FATAL|PANIC):\s+([0-9A-Z]{5}):\s*([^\r\n]*)")
_LINE = re.compile(r"^LINE (\d+): (.*)\r?\n?( *\^)?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ManagementConnection:
    """A `TenantConnection` without a connection: every call is a session of its own.

    `SET`, advisory locks and prepared statements don't outlive a call. Of several statements
    only one set of rows is returned.
    """

    keeps_session: ClassVar[bool] = False
    api: ManagementApi
    ref: str

    async def fetch(self, sql: str) -> list[dict[str, Any]]:
        """Run one statement and return its rows, values as JSON carries them.

        Raises:
            StatementError: the server refused it; see `read_statement_error` for its position.
            OutcomeUnknown: no usable answer; the statement may have run.
            Transient: the project takes no queries yet.
        """
        return await self.api.run_query(
            self.ref, sql, read_refusal=lambda answer: read_statement_error(answer, sql)
        )

    async def execute(self, sql: str) -> None:
        """Run a script in the transactions that it contains; raises the errors of `fetch`."""
        await self.fetch(sql)


def read_statement_error(answer: ApiAnswer, sql: str) -> StatementError | None:
    """Return the server's error in an answer, or None when it is the API's own.

    The message is the server's first line, without the echo of the statement. The position is the
    character under the server's caret when the echoed line is complete, else the first character
    of the line that `LINE n:` names, else None.

    Raises:
        Transient: the API couldn't log in to the server.
        OutcomeUnknown: the server ended the session during the statement.
    """
    # The OpenAPI document says 500 for "Failed to run sql query"; the API answers 400.
    if answer.status not in {400, 500}:
        return None
    text = raw_message(answer.body)
    found = _ERROR.search(text)
    if found is None:
        return None
    sqlstate, message = found.group(1), scrub(found.group(2).strip(), [sql.strip()])
    summary = f"the tenant's server: {message} [{sqlstate}]"
    if belongs_to(sqlstate, NEVER_SENT):
        raise Transient(summary)
    if belongs_to(sqlstate, (*CONNECTION_LOST, *SESSION_ENDED)):
        raise OutcomeUnknown(summary)
    return StatementError(
        message, sqlstate=sqlstate, position=_find_position(text[found.end() :], sql)
    )


def _find_position(after_message: str, sql: str) -> int | None:
    echo = _LINE.search(after_message)
    lines = sql.split("\n")
    if echo is None or not 1 <= int(echo.group(1)) <= len(lines):
        return None
    number = int(echo.group(1))
    start = sum(len(line) + 1 for line in lines[: number - 1]) + 1
    caret, echoed = echo.group(3), echo.group(2).rstrip("\r")
    # The server echoes a tab as one blank.
    is_complete = echoed.expandtabs(1).rstrip() == lines[number - 1].expandtabs(1).rstrip()
    if caret is None or not is_complete:
        return start
    column = len(caret) - 1 - len(f"LINE {number}: ")
    return start + column if 0 <= column <= len(lines[number - 1]) else start
