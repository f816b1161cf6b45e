"""What people ask of the queue: look, retry, cancel, pause. For command line, API and console."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from pgworker.db.queries import load
from pgworker.errors import NotRetryable, UnknownClient, UnknownWorkflow
from pgworker.models import Client, client_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgworker.db.pool import Pool


class OperationQueries(NamedTuple):
    """The statements of `sql/queries/operations.sql`."""

    jobs: str
    failed_clients: str
    clients: str
    client: str
    clients_named: str
    some_names: str
    add_client: str
    order_client: str
    tenants: str
    set_schema_version: str
    retry: str
    retry_group: str
    cancel: str
    pause: str
    resume: str
    history: str
    checkpoint: str
    health: str
    workers: str
    open_breakers: str
    used_up_limits: str
    clients_open_to_api_roles: str
    phase_seconds: str
    failed_groups: str
    what_helps: str
    workflows: str
    pauses: str


OPERATION_QUERIES = load(OperationQueries, "queries/operations.sql")

Row = dict[str, Any]
EVERYTHING = "all"
# Below it a name isn't offered for one that nobody has.
ALIKE = 0.65


@dataclass(frozen=True, slots=True)
class RetryReport:
    """What became of clients that were to be retried.

    Attributes:
        retried: ids whose job is back in line.
        refused: ids that were left alone, each with the reason.
    """

    retried: tuple[UUID, ...]
    refused: dict[UUID, str]


@dataclass(frozen=True, slots=True)
class Order:
    """A client that somebody wants.

    Attributes:
        additional_settings: as the column of `clients`; `region`, `plan` and `provider` are wishes.
        traceparent: W3C trace context of whoever orders it.
        key: names the order; the same order of the same person isn't carried out twice.
    """

    name: str
    auto_provision: bool = True
    additional_settings: dict[str, Any] = field(default_factory=dict)
    traceparent: str | None = None
    key: str | None = None

    def fingerprint(self) -> bytes:
        """Return what tells two orders apart."""
        ordered = [self.name, self.auto_provision, self.additional_settings]
        return hashlib.sha256(json.dumps(ordered, sort_keys=True).encode()).digest()


@dataclass(frozen=True, slots=True)
class Ordered:
    """The client that an order is for, and whether it was made just now."""

    client_id: UUID
    is_new: bool


class Operations:
    """Reads the status views and calls the functions that are for people.

    Rows are dictionaries by column name, as the views of schema `pgworker` document them.
    Every method may raise `DatabaseUnreachable`, or `SchemaMismatch` when there is no schema yet.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, id_or_name: str) -> UUID:
        """Return the id of the client that is meant.

        Raises:
            UnknownClient: none or several go by that; the message names the nearest.
        """
        try:
            client_id = UUID(id_or_name)
        except ValueError:
            return await self._find_by_name(id_or_name)
        if not await self._fetch(OPERATION_QUERIES.client, client_id):
            raise UnknownClient(f"there is no client {client_id} (pgworker clients list shows all)")
        return client_id

    async def _find_by_name(self, name: str) -> UUID:
        rows = await self._fetch(OPERATION_QUERIES.clients_named, name)
        if len(rows) == 1:
            client_id: UUID = rows[0]["id"]
            return client_id
        if rows:
            raise UnknownClient(
                f"{len(rows)} or more clients are named {name!r}: give an id, such as "
                f"{rows[0]['id']}"
            )
        names = [row["name"] for row in await self._fetch(OPERATION_QUERIES.some_names, name)]
        near = nearest(name, names)
        advice = f"; nearest: {', '.join(near)}" if near else ""
        raise UnknownClient(f"no client has the id or name {name!r}{advice}")

    async def client(self, client_id: UUID) -> Client:
        """Return a client.

        Raises:
            UnknownClient: there is none of that id.
        """
        rows = await self._fetch(OPERATION_QUERIES.client, client_id)
        if not rows:
            raise UnknownClient(f"there is no client {client_id}")
        return Client(**(rows[0] | {"status": client_status(rows[0]["status"])}))

    async def clients(
        self, *, status: str | None = None, client_id: UUID | None = None, limit: int | None = None
    ) -> list[Row]:
        """Return rows of `client_status`, newest client first; `limit` of None: all."""
        return await self._fetch(OPERATION_QUERIES.clients, status, client_id, limit)

    async def jobs(
        self, *, status: str | None = None, client_id: UUID | None = None, limit: int | None = None
    ) -> list[Row]:
        """Return rows of `job_status`, newest job first; `limit` of None: all."""
        return await self._fetch(OPERATION_QUERIES.jobs, status, client_id, limit)

    async def failed_clients(self, kind: str | None = None) -> list[Row]:
        """Return `client_id` and `client_name` of those with a failed job (of that kind)."""
        return await self._fetch(OPERATION_QUERIES.failed_clients, kind)

    async def add_client(self, name: str, settings: dict[str, Any]) -> UUID:
        """Insert a client with `auto_provision`, which enqueues its job."""
        client_id: UUID = await self._value(OPERATION_QUERIES.add_client, name, settings)
        return client_id

    async def order_client(self, order: Order, *, by: str | None = None) -> Ordered:
        """Insert a client; one that was ordered before under the same key is given again.

        Raises:
            IdempotencyConflict: the key was used for a different request before.
        """
        (row,) = await self._fetch(
            OPERATION_QUERIES.order_client,
            order.name,
            order.auto_provision,
            order.additional_settings,
            order.traceparent,
            *((by or "", order.key, order.fingerprint()) if order.key else (None, None, None)),
            by,
        )
        return Ordered(row["client_id"], is_new=row["is_new"])

    async def tenants(self) -> list[UUID]:
        """Return the ids of all clients that have a tenant."""
        return [row["id"] for row in await self._fetch(OPERATION_QUERIES.tenants)]

    async def set_schema_version(self, client_id: UUID, version: str | None) -> None:
        """Record the newest migration that a tenant has."""
        await self._value(OPERATION_QUERIES.set_schema_version, client_id, version)

    async def retry(self, client_id: UUID, *, by: str | None = None) -> int:
        """Put the client's failed job back in line, at its phase; return the job's id.

        Args:
            client_id: of the client.
            by: for whom it is done, as the audit trail tells beside the database's role.

        Raises:
            NotRetryable: it has none.
            UnknownClient: there is no such client.
        """
        job_id: int = await self._value(OPERATION_QUERIES.retry, client_id, by)
        return job_id

    async def retry_group(self, group_id: str, *, by: str | None = None) -> int:
        """Retry all jobs that failed with the same error (`failed_groups`); return how many."""
        count: int = await self._value(OPERATION_QUERIES.retry_group, group_id, by)
        return count

    async def failed_groups(self, *, limit: int | None = None) -> list[Row]:
        """Return failed jobs by what is the same error, the most numerous group first."""
        return await self._fetch(OPERATION_QUERIES.failed_groups, limit)

    async def retry_each(self, client_ids: Sequence[UUID]) -> RetryReport:
        """Retry several clients; one without a failed job is left alone and reported."""
        retried: list[UUID] = []
        refused: dict[UUID, str] = {}
        for client_id in client_ids:
            try:
                await self.retry(client_id)
            except NotRetryable as error:
                refused[client_id] = str(error)
            else:
                retried.append(client_id)
        return RetryReport(tuple(retried), refused)

    async def cancel(self, client_id: UUID, *, by: str | None = None) -> int:
        """Cancel the client's unfinished jobs; return how many. What exists outside stays.

        Raises:
            UnknownClient: there is no such client.
        """
        count: int = await self._value(OPERATION_QUERIES.cancel, client_id, by)
        return count

    async def pause(self, scope: str, *, by: str | None = None) -> bool:
        """Stop claiming jobs of a workflow, or `all`; return whether that is news.

        Raises:
            UnknownWorkflow: there is no such workflow.
        """
        known = [row["workflow"] for row in await self._fetch(OPERATION_QUERIES.workflows)]
        if scope not in {EVERYTHING, *known}:
            raise UnknownWorkflow(
                f"there is no workflow {scope!r}: choose {EVERYTHING} or {', '.join(known)}"
            )
        return bool(await self._value(OPERATION_QUERIES.pause, scope, by))

    async def resume(self, scope: str, *, by: str | None = None) -> bool:
        """Take a pause back; return whether there was one."""
        return bool(await self._value(OPERATION_QUERIES.resume, scope, by))

    async def pauses(self) -> list[Row]:
        """Return what is paused, since when and by whom."""
        return await self._fetch(OPERATION_QUERIES.pauses)

    async def what_helps(self, client_id: UUID) -> str | None:
        """Return what would help the client's failed job; None when none has failed."""
        advice: str | None = await self._value(OPERATION_QUERIES.what_helps, client_id)
        return advice

    async def phase_seconds(self, client_ids: Sequence[UUID]) -> list[Row]:
        """Return `client_id`, `phase` and `seconds`, for phases begun, of the newest jobs.

        A phase that isn't over counts until now.
        """
        return await self._fetch(OPERATION_QUERIES.phase_seconds, list(client_ids))

    async def history(self, client_id: UUID, *, limit: int = 20) -> list[Row]:
        """Return the client's newest events, oldest first."""
        return await self._fetch(OPERATION_QUERIES.history, client_id, limit)

    async def last_answer(self, client_id: UUID) -> str | None:
        """Return the provider's last answer about the client's tenant, without secrets."""
        checkpoint = await self._value(OPERATION_QUERIES.checkpoint, client_id)
        return (checkpoint or {}).get("last_answer")

    async def health(self) -> Row:
        """Return the row of `queue_health`."""
        (row,) = await self._fetch(OPERATION_QUERIES.health)
        return row

    async def workers(self) -> list[Row]:
        """Return `worker_status`."""
        return await self._fetch(OPERATION_QUERIES.workers)

    async def open_breakers(self) -> list[Row]:
        """Return the credentials that the provider refuses, and that somebody still tries."""
        return await self._fetch(OPERATION_QUERIES.open_breakers)

    async def used_up_limits(self) -> list[Row]:
        """Return the buckets of the provider's rate limit that are empty now."""
        return await self._fetch(OPERATION_QUERIES.used_up_limits)

    async def clients_are_open(self) -> bool:
        """Return whether the roles of a Supabase Data API may read `clients`."""
        return bool(await self._value(OPERATION_QUERIES.clients_open_to_api_roles))

    async def _fetch(self, query: str, *arguments: object) -> list[Row]:
        return [dict(row) for row in await self._pool.fetch(query, *arguments)]

    async def _value(self, query: str, *arguments: object) -> Any:
        return await self._pool.fetchval(query, *arguments)


def nearest(name: str, names: list[str]) -> list[str]:
    """Return up to three names that `name`, or a word of them, may be a slip of the pen for."""
    likeness = {each: _likeness(name.casefold(), each.casefold()) for each in names}
    near = [each for each, alike in likeness.items() if alike >= ALIKE]
    return sorted(near, key=lambda each: -likeness[each])[:3]


def _likeness(typed: str, name: str) -> float:
    """Return how alike two texts are, from 0 to 1; a word of the name stands for almost all."""
    matcher = difflib.SequenceMatcher(b=typed)
    best = 0.0
    for weight, candidate in ((1.0, name), *((0.9, word) for word in name.split())):
        matcher.set_seq1(candidate)
        if matcher.quick_ratio() * weight > best:
            best = max(best, matcher.ratio() * weight)
    return best
