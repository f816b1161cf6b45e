"""Lists page by page, newest first. A page begins behind the last row of the one before.

The cursor is that row's position in the order. So rows that are inserted meanwhile neither shift a
page nor appear twice, and the hundredth page costs what the first one does.
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

# PostgreSQL's bigint; beyond it the server would refuse the statement.
_LARGEST_ID = 2**63 - 1


class PageQueries(NamedTuple):
    """The statements of `sql/queries/pages.sql`."""

    clients: str
    jobs: str


PAGE_QUERIES = load(PageQueries, "queries/pages.sql")


@dataclass(frozen=True, slots=True)
class Filter:
    """What a list is restricted to; None doesn't restrict it.

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

    async def list_clients(
        self, wanted: Filter, *, limit: int, cursor: str | None = None
    ) -> Page[ClientStatusRow]:
        """Return clients with their newest jobs, newest client first.

        Args:
            wanted: which ones.
            limit: rows of a page.
            cursor: `next_cursor` of the page before; None: the first page.
        """
        before_at, before_id = None, None
        if cursor is not None:
            before_at, before_id = _parse_cursor(
                cursor, "c", lambda at, id_: (_parse_time(at), UUID(id_))
            )
        # The id breaks ties: one statement may insert many clients, at the same time.
        rows = await fetch_rows(
            self._pool,
            ClientStatusRow,
            PAGE_QUERIES.clients,
            *(wanted.status, wanted.kind, wanted.phase, wanted.text),
            *(before_at, before_id, limit + 1),
        )
        return _make_page(
            rows, limit, lambda row: _make_cursor("c", _write_time(row.created_at), row.client_id)
        )

    async def list_jobs(
        self, wanted: Filter, *, limit: int, cursor: str | None = None
    ) -> Page[JobStatusRow]:
        """Return jobs, newest first.

        Args:
            wanted: which ones.
            limit: rows of a page.
            cursor: `next_cursor` of the page before; None: the first page.
        """
        before = None if cursor is None else _parse_cursor(cursor, "j", _parse_job_id)
        rows = await fetch_rows(
            self._pool,
            JobStatusRow,
            PAGE_QUERIES.jobs,
            *(wanted.status, wanted.kind, wanted.phase, wanted.text, wanted.client_id),
            *(before, limit + 1),
        )
        return _make_page(rows, limit, lambda row: _make_cursor("j", row.id))


def _make_page(rows: list[R], limit: int, get_cursor: Callable[[R], str]) -> Page[R]:
    """Return a page: one row more than it holds was fetched, to know whether there is a next."""
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], get_cursor(rows[limit - 1]))


def _make_cursor(kind: str, *position: object) -> str:
    """Return a cursor: opaque, so that programs don't build their own; and without secrets."""
    text = json.dumps([kind, *position], default=str, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _parse_cursor(cursor: str, kind: str, parse_position: Callable[..., T]) -> T:
    """Return the position in a cursor of that kind.

    Raises:
        BadCursor: it is one of another list, or was made up.
    """
    refusal = BadCursor("the cursor doesn't come from a list of this kind")
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        found, *position = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if found == kind:
            return parse_position(*position)
    except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError):
        raise refusal from None
    raise refusal


def _parse_job_id(value: object) -> int:
    # In Python True is an int.
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST_ID:
        raise ValueError(value)
    return value


def _write_time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _parse_time(text: str | None) -> datetime | None:
    if text is None:
        return None
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(text)
    return at
