"""What the console shows beside its lists: who is stuck, who failed by one error, what was done."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pgworker.db.queries import load

if TYPE_CHECKING:
    from uuid import UUID

    from pgworker.db.pool import Pool
    from pgworker.status.commands import Row


class LookupQueries(NamedTuple):
    """The statements of `sql/queries/lookups.sql`."""

    statuses: str
    stuck: str
    phases: str
    failed_group: str
    clients_of_group: str
    remedy: str
    steps: str


LOOKUP_QUERIES = load(LookupQueries, "queries/lookups.sql")


class Lookups:
    """Reads what is shown. Every method may raise `DatabaseUnreachable`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def statuses(self) -> dict[str, int]:
        """Return how many clients show each status."""
        rows = await self._fetch(LOOKUP_QUERIES.statuses)
        return {row["status"]: row["clients"] for row in rows}

    async def stuck(self, *, limit: int) -> list[Row]:
        """Return rows of `client_status` whose job is queued or waiting, the longest due first."""
        return await self._fetch(LOOKUP_QUERIES.stuck, limit)

    async def phases(self, workflow: str | None = None) -> list[str]:
        """Return the phases of a workflow in their order; None: of all workflows."""
        rows = await self._fetch(LOOKUP_QUERIES.phases, workflow)
        return list(dict.fromkeys(row["phase"] for row in rows))

    async def failed_group(self, group_id: str) -> Row | None:
        """Return a row of `failed_groups`; None when nobody is failed by that error any more."""
        rows = await self._fetch(LOOKUP_QUERIES.failed_group, group_id)
        return rows[0] if rows else None

    async def clients_of_group(self, group_id: str, *, limit: int | None = None) -> list[Row]:
        """Return `client_id`, `client_name` and `failed_at` of a group, newest failure first."""
        return await self._fetch(LOOKUP_QUERIES.clients_of_group, group_id, limit)

    async def remedy(self, error_kind: str | None) -> str:
        """Return what would help a job that failed by that kind of error, in words only."""
        (row,) = await self._fetch(LOOKUP_QUERIES.remedy, error_kind)
        advice: str = row["what_helps"]
        return advice

    async def steps(self, client_id: UUID, *, limit: int = 50) -> list[Row]:
        """Return what was done outside for the client (rows of `steps`), newest first."""
        return await self._fetch(LOOKUP_QUERIES.steps, client_id, limit)

    async def _fetch(self, query: str, *arguments: object) -> list[Row]:
        return [dict(row) for row in await self._pool.fetch(query, *arguments)]
