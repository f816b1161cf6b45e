"""Lists page by page, newest first. A page begins behind the last row of the one before.

That row's place is the cursor, so that rows which are inserted meanwhile neither shift a page nor
show up twice, and the hundredth page costs what the first one does.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar
from uuid import UUID

from pgworker.db.queries import load
from pgworker.errors import BadCursor
from pgworker.status.rows import ClientStatusRow, JobStatusRow, fetch_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgworker.db.pool import Pool

T = TypeVar("T")
R = TypeVar("R", ClientStatusRow, JobStatusRow)

# What PostgreSQL's bigint holds.
_LARGEST_ID = 2**63 - 1


class PageQueries(NamedTuple):
    """The statements of `sql/queries/pages.sql`."""

    clients: str
    jobs: str


PAGE_QUERIES = load(PageQueries, "queries/pages.sql")


@dataclass(frozen=True, slots=True)
class Filter:
    """What a list is restricted to; None restricts nothing.

    Attributes:
        status: of the client, or of the job.
        kind: of the error of the unfinished or failed job.
        phase: that the unfinished or failed job is in.
        text: part of the client's name, its id, or its project's ref.
        client_id: of the job's client (lists of jobs only).
    """

    status: str | None = None
    kind: str | None = None
    phase: str | None = None
    text: str | None = None
    client_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Some rows of a list.

    Attributes:
        rows: of `client_status` or `job_status`.
        next_cursor: where the next page begins; None when this is the last one.
    """

    rows: list[R]
    next_cursor: str | None


class Pages:
    """Reads lists. Every method may raise `DatabaseUnreachable`, and `BadCursor` for a cursor."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def clients(
        self, wanted: Filter, *, limit: int, cursor: str | None = None
    ) -> Page[ClientStatusRow]:
        """Return clients with their newest jobs, newest client first."""
        before_at, before_id = None, None
        if cursor is not None:
            before_at, before_id = _read(cursor, "c", lambda at, id_: (_time(at), UUID(id_)))
        rows = await fetch_rows(
            self._pool,
            ClientStatusRow,
            PAGE_QUERIES.clients,
            *(wanted.status, wanted.kind, wanted.phase, wanted.text),
            *(before_at, before_id, limit + 1),
        )
        return _page(rows, limit, lambda row: _cursor("c", _told(row.created_at), row.client_id))

    async def jobs(
        self, wanted: Filter, *, limit: int, cursor: str | None = None
    ) -> Page[JobStatusRow]:
        """Return jobs, newest first."""
        before = None if cursor is None else _read(cursor, "j", _job_id)
        rows = await fetch_rows(
            self._pool,
            JobStatusRow,
            PAGE_QUERIES.jobs,
            *(wanted.status, wanted.kind, wanted.phase, wanted.text, wanted.client_id),
            *(before, limit + 1),
        )
        return _page(rows, limit, lambda row: _cursor("j", row.id))


def _page(rows: list[R], limit: int, cursor_of: Callable[[R], str]) -> Page[R]:
    """Keep a page of rows: one more than its size was asked for, to know whether there is more."""
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], cursor_of(rows[limit - 1]))


def _cursor(kind: str, *place: object) -> str:
    text = json.dumps([kind, *place], default=str, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(cursor: str, kind: str, place_of: Callable[..., T]) -> T:
    refusal = BadCursor("the cursor is not one that a list of this kind gave")
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        found, *place = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if found == kind:
            return place_of(*place)
    except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError):
        raise refusal from None
    raise refusal


def _job_id(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST_ID:
        raise ValueError(value)
    return value


def _told(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _time(told: str | None) -> datetime | None:
    if told is None:
        return None
    at = datetime.fromisoformat(told)
    if at.tzinfo is None:
        raise ValueError(told)
    return at
