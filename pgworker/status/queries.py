"""What people see: clients, jobs, failures, workers and the queue, as the status views have it."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from pgworker.db.queries import load
from pgworker.errors import UnknownClient
from pgworker.models import Client, parse_client_status
from pgworker.status.rows import (
    BreakerRow,
    ClientStatusRow,
    EventRow,
    FailedClientRow,
    FailedGroupRow,
    GroupClientRow,
    HealthRow,
    JobStatusRow,
    LimitRow,
    PauseRow,
    PhaseSecondsRow,
    StepRow,
    WorkerRow,
    fetch_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pgworker.db.pool import Pool
    from pgworker.status.rows import R


class StatusQueries(NamedTuple):
    """The statements of `sql/queries/status.sql`."""

    client: str
    clients: str
    clients_named: str
    likely_names: str
    clients_by_status: str
    stuck: str
    clients_with_tenant: str
    jobs: str
    failed_clients: str
    failed_groups: str
    clients_of_group: str
    advice: str
    remedy: str
    history: str
    steps: str
    checkpoint: str
    phases: str
    phase_seconds: str
    health: str
    workers: str
    pauses: str
    open_breakers: str
    exhausted_limits: str
    clients_open_to_api_roles: str


STATUS_QUERIES = load(StatusQueries, "queries/status.sql")

# `difflib`'s ratio, from 0 to 1. Below it a name is too different to be offered for another.
SIMILARITY = 0.65
NAMES_OFFERED = 3


class StatusReader:
    """Reads the status views and tables of schema `pgworker`; changes nothing.

    Every method may raise `DatabaseUnreachable`, or `SchemaMismatch` when there is no schema yet.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    # -- clients --------------------------------------------------------------------------

    async def find_client(self, id_or_name: str) -> UUID:
        """Return the id of the client of that id or unique name.

        Raises:
            UnknownClient: none or several match; the message offers similar names.
        """
        try:
            client_id = UUID(id_or_name)
        except ValueError:
            return await self._find_by_name(id_or_name)
        if await self._pool.fetchrow(STATUS_QUERIES.client, client_id) is None:
            raise UnknownClient(f"there is no client {client_id} (pgworker clients list shows all)")
        return client_id

    async def _find_by_name(self, name: str) -> UUID:
        """Return the id of the only client of exactly that name.

        Raises:
            UnknownClient: there is none, or more than one.
        """
        async with self._pool.acquire() as connection:
            # In the database's encoding another name may take the place of one that it lacks.
            is_possible = connection.can_store(name)
        # Names aren't unique: a command must not guess which client is meant.
        ids: list[UUID] = []
        if is_possible:
            ids = await self._fetch_column(STATUS_QUERIES.clients_named, name)
        if len(ids) == 1:
            return ids[0]
        if ids:
            raise UnknownClient(
                f"{len(ids)} or more clients are named {name!r}: give an id, such as {ids[0]}"
            )
        similar = find_similar(name, await self._fetch_column(STATUS_QUERIES.likely_names, name))
        offer = f"; similar: {', '.join(similar)}" if similar else ""
        raise UnknownClient(f"no client has the id or name {name!r}{offer}")

    async def get_client(self, client_id: UUID) -> Client:
        """Return a client.

        Raises:
            UnknownClient: there is none of that id.
        """
        row = await self._pool.fetchrow(STATUS_QUERIES.client, client_id)
        if row is None:
            raise UnknownClient(f"there is no client {client_id}")
        return Client(**(dict(row) | {"status": parse_client_status(row["status"])}))

    async def get_client_status(self, client_id: UUID) -> ClientStatusRow:
        """Return the client's row of `client_status`.

        Raises:
            UnknownClient: there is none of that id.
        """
        rows = await self._fetch(ClientStatusRow, STATUS_QUERIES.clients, client_id, None)
        if not rows:
            raise UnknownClient(f"there is no client {client_id}")
        return rows[0]

    async def list_clients(self, *, limit: int | None = None) -> list[ClientStatusRow]:
        """Return rows of `client_status`, newest client first; `limit` of None: all."""
        return await self._fetch(ClientStatusRow, STATUS_QUERIES.clients, None, limit)

    async def count_clients(self) -> dict[str, int]:
        """Return the number of clients in each `provisioning_status`."""
        rows = await self._pool.fetch(STATUS_QUERIES.clients_by_status)
        return {row["status"]: row["clients"] for row in rows}

    async def list_stuck(self, *, limit: int) -> list[ClientStatusRow]:
        """Return rows of `client_status` whose job is queued or waiting, the longest due first."""
        return await self._fetch(ClientStatusRow, STATUS_QUERIES.stuck, limit)

    async def list_clients_with_tenant(self) -> list[UUID]:
        """Return the ids of all clients that have a tenant."""
        return await self._fetch_column(STATUS_QUERIES.clients_with_tenant)

    async def list_steps(self, client_id: UUID, *, limit: int = 50) -> list[StepRow]:
        """Return what was done for the client at the provider (rows of `steps`), newest first."""
        return await self._fetch(StepRow, STATUS_QUERIES.steps, client_id, limit)

    async def list_events(self, client_id: UUID, *, limit: int = 20) -> list[EventRow]:
        """Return the client's newest events, oldest first."""
        return await self._fetch(EventRow, STATUS_QUERIES.history, client_id, limit)

    async def get_last_answer(self, client_id: UUID) -> str | None:
        """Return the provider's last answer about the client's tenant, without secrets.

        The phases leave it in the checkpoint, where no secret may be.
        """
        checkpoint = await self._pool.fetchval(STATUS_QUERIES.checkpoint, client_id)
        return (checkpoint or {}).get("last_answer")

    # -- jobs and failures ----------------------------------------------------------------

    async def list_jobs(
        self, *, status: str | None = None, client_id: UUID | None = None, limit: int | None = None
    ) -> list[JobStatusRow]:
        """Return rows of `job_status`, newest job first; `limit` of None: all."""
        return await self._fetch(JobStatusRow, STATUS_QUERIES.jobs, status, client_id, limit)

    async def list_failed_clients(self, kind: str | None = None) -> list[FailedClientRow]:
        """Return those with a failed job (of that kind)."""
        return await self._fetch(FailedClientRow, STATUS_QUERIES.failed_clients, kind)

    async def list_failed_groups(self, *, limit: int | None = None) -> list[FailedGroupRow]:
        """Return failed jobs by what is the same error, the most numerous group first."""
        return await self._fetch(FailedGroupRow, STATUS_QUERIES.failed_groups, None, limit)

    async def get_failed_group(self, group_id: str) -> FailedGroupRow | None:
        """Return a row of `failed_groups`; None when no job is failed with that error any more."""
        rows = await self._fetch(FailedGroupRow, STATUS_QUERIES.failed_groups, group_id, 1)
        return rows[0] if rows else None

    async def list_clients_of_group(
        self, group_id: str, *, limit: int | None = None
    ) -> list[GroupClientRow]:
        """Return the clients of a group, newest failure first."""
        return await self._fetch(GroupClientRow, STATUS_QUERIES.clients_of_group, group_id, limit)

    async def get_advice(self, client_id: UUID) -> str | None:
        """Return what to do about the client's failed job, with the command to type.

        None when none has failed.
        """
        advice: str | None = await self._pool.fetchval(STATUS_QUERIES.advice, client_id)
        return advice

    async def get_remedy(self, error_kind: str | None) -> str:
        """Return what to do about a kind of error, without a command to type."""
        remedy: str = await self._pool.fetchval(STATUS_QUERIES.remedy, error_kind)
        return remedy

    async def list_phases(self, workflow: str | None = None) -> list[str]:
        """Return the phases of a workflow in their order; None: of all workflows."""
        # Workflows may share a phase by name; a filter offers it once.
        return list(dict.fromkeys(await self._fetch_column(STATUS_QUERIES.phases, workflow)))

    async def list_phase_seconds(self, client_ids: Sequence[UUID]) -> list[PhaseSecondsRow]:
        """Return the phases that the newest jobs have begun.

        A phase that hasn't ended counts until now.
        """
        return await self._fetch(PhaseSecondsRow, STATUS_QUERIES.phase_seconds, list(client_ids))

    # -- the queue ------------------------------------------------------------------------

    async def get_health(self) -> HealthRow:
        """Return the row of `queue_health`."""
        (row,) = await self._fetch(HealthRow, STATUS_QUERIES.health)
        return row

    async def list_workers(self) -> list[WorkerRow]:
        """Return `worker_status`."""
        return await self._fetch(WorkerRow, STATUS_QUERIES.workers)

    async def list_pauses(self) -> list[PauseRow]:
        """Return what is paused, since when and by whom."""
        return await self._fetch(PauseRow, STATUS_QUERIES.pauses)

    async def list_open_breakers(self) -> list[BreakerRow]:
        """Return the credentials that the provider refuses and that are still in use.

        A breaker whose probe is long overdue belongs to a credential that was replaced: no worker
        has it any more, so its breaker can never close.
        """
        return await self._fetch(BreakerRow, STATUS_QUERIES.open_breakers)

    async def list_exhausted_limits(self) -> list[LimitRow]:
        """Return the buckets of the provider's rate limit that are empty now."""
        return await self._fetch(LimitRow, STATUS_QUERIES.exhausted_limits)

    async def clients_are_open(self) -> bool:
        """Return whether the roles of a Supabase Data API may read `clients`."""
        return bool(await self._pool.fetchval(STATUS_QUERIES.clients_open_to_api_roles))

    async def _fetch(self, shape: type[R], query: str, *arguments: object) -> list[R]:
        return await fetch_rows(self._pool, shape, query, *arguments)

    async def _fetch_column(self, query: str, *arguments: object) -> list[Any]:
        return [record[0] for record in await self._pool.fetch(query, *arguments)]


def find_similar(typed: str, names: Iterable[str]) -> list[str]:
    """Return up to three names for which `typed` may be a typing error, the most similar first.

    A name is also found by one of its words: `Akme` finds `Acme Bakery`.
    """
    names_by_part: dict[str, list[str]] = {}
    for name in names:
        for part in {name.casefold(), *name.casefold().split()}:
            names_by_part.setdefault(part, []).append(name)
    # Its quick checks come before the exact ratio, so that a thousand names take milliseconds.
    parts = difflib.get_close_matches(
        typed.casefold(), names_by_part, n=NAMES_OFFERED, cutoff=SIMILARITY
    )
    similar = dict.fromkeys(name for part in parts for name in names_by_part[part])
    return list(similar)[:NAMES_OFFERED]
