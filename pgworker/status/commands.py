"""What a person changes: create, retry and cancel clients, pause and resume the queue."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pgworker.db.queries import load
from pgworker.errors import NotRetryable, UnknownWorkflow, UnstorableText

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from pgworker.db.pool import Connection, Pool


class CommandQueries(NamedTuple):
    """The statements of `sql/queries/commands.sql`."""

    create_client: str
    set_schema_version: str
    retry: str
    retry_group: str
    cancel: str
    workflows: str
    pause: str
    resume: str


COMMAND_QUERIES = load(CommandQueries, "queries/commands.sql")

# The scope of a pause that holds every workflow.
EVERYTHING = "all"


@dataclass(frozen=True, slots=True)
class RetryReport:
    """The result of retrying several clients.

    Attributes:
        retried: ids of the clients whose job is queued again.
        refused: ids of the clients that were left alone, each with the reason.
    """

    retried: tuple[UUID, ...]
    refused: dict[UUID, str]


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A client to create.

    Attributes:
        additional_settings: as the column of `clients`; `region`, `plan` and `provider` are
            requests to the provider.
        traceparent: W3C trace context of the requester.
        key: idempotency key. The same request with the same key, made for the same person, creates
            one client.
    """

    name: str
    auto_provision: bool = True
    additional_settings: dict[str, Any] = field(default_factory=dict)
    traceparent: str | None = None
    key: str | None = None

    def fingerprint(self) -> bytes:
        """Return a hash of what must be equal when a key is used again.

        The traceparent isn't part of it: a repeated request has a trace of its own.
        """
        # Sorted: the order of the keys in a JSON object has no meaning.
        content = [self.name, self.auto_provision, self.additional_settings]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


class CreatedClient(NamedTuple):
    """The client of a request; not new when an earlier request with the same key created it."""

    client_id: UUID
    is_new: bool


class Commands:
    """Calls the SQL functions that are for people.

    `by` names the person for whom a command runs: the audit trail has it beside the database's
    role. Every method may raise `DatabaseUnreachable`, or `SchemaMismatch` when there is no schema.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create_client(
        self, request: ClientRequest, *, by: str | None = None
    ) -> CreatedClient:
        """Insert a client, with its job when `auto_provision` is set.

        Raises:
            IdempotencyConflict: the key came with another request before.
            UnstorableText: the database's encoding lacks a character of the request.
        """
        key = (by or "", request.key, request.fingerprint()) if request.key else (None, None, None)
        async with self._pool.acquire() as connection:
            _refuse_unstorable(request, connection)
            row = await connection.fetchrow(
                COMMAND_QUERIES.create_client,
                request.name,
                request.auto_provision,
                request.additional_settings,
                request.traceparent,
                *key,
                by,
            )
        assert row is not None
        return CreatedClient._make(row)

    async def set_schema_version(self, client_id: UUID, version: str | None) -> None:
        """Record the newest migration that a tenant has."""
        await self._pool.execute(COMMAND_QUERIES.set_schema_version, client_id, version)

    async def retry(self, client_id: UUID, *, by: str | None = None) -> int:
        """Queue the client's failed or cancelled job again, at its phase; return the job's id.

        Raises:
            NotRetryable: it has none.
            UnknownClient: there is no such client.
        """
        job_id: int = await self._pool.fetchval(COMMAND_QUERIES.retry, client_id, by)
        return job_id

    async def retry_group(self, group_id: str, *, by: str | None = None) -> int:
        """Retry all jobs that failed with the same error (`failed_groups`); return how many."""
        count: int = await self._pool.fetchval(COMMAND_QUERIES.retry_group, group_id, by)
        return count

    async def retry_each(self, client_ids: Sequence[UUID]) -> RetryReport:
        """Retry several clients; one without a failed job is left alone and reported."""
        # One transaction each, so that a client that can't be retried doesn't undo the others.
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
        """Cancel the client's unfinished or failed jobs; return how many.

        What exists at the provider stays there.

        Raises:
            UnknownClient: there is no such client.
        """
        count: int = await self._pool.fetchval(COMMAND_QUERIES.cancel, client_id, by)
        return count

    async def pause(self, scope: str, *, by: str | None = None) -> bool:
        """Stop claiming jobs of a workflow, or of all; return whether that changed anything.

        Raises:
            UnknownWorkflow: there is no such workflow.
        """
        rows = await self._pool.fetch(COMMAND_QUERIES.workflows)
        known = [row["workflow"] for row in rows]
        if scope not in {EVERYTHING, *known}:
            raise UnknownWorkflow(
                f"there is no workflow {scope!r}: choose {EVERYTHING} or {', '.join(known)}"
            )
        return bool(await self._pool.fetchval(COMMAND_QUERIES.pause, scope, by))

    async def resume(self, scope: str, *, by: str | None = None) -> bool:
        """End a pause; return whether there was one."""
        return bool(await self._pool.fetchval(COMMAND_QUERIES.resume, scope, by))


def _refuse_unstorable(request: ClientRequest, connection: Connection) -> None:
    """Refuse text that the database's encoding lacks.

    Its connection would replace the letters, and the client would have an altered name.

    Raises:
        UnstorableText: a letter of the name, the settings or the key is missing.
    """
    settings = json.dumps(request.additional_settings, ensure_ascii=False)
    for what, text in (("name", request.name), ("settings", settings), ("key", request.key or "")):
        missing = sorted({each for each in text if not connection.can_store(each)})
        if missing:
            raise UnstorableText(
                f"the {what} of the client can't be stored: the database has the encoding "
                f"{connection.encoding}, which lacks {' '.join(missing)}"
            )
