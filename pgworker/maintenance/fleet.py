"""The canonical schema of existing tenants: compare it, and apply what they lack.

This is for a person, over one tenant or all. What a job does when it provisions a tenant is
`provisioning/phases/schema_sync.py`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pgworker.errors import JobError, Permanent
from pgworker.providers.base import Credentials
from pgworker.provisioning.ledger import Ledger
from pgworker.provisioning.step_ledger import StepLedger
from pgworker.schema.apply import SyncReport, apply_migrations
from pgworker.tenants.redaction import scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from pgworker.context import Platform
    from pgworker.schema.migrations import CanonicalSet
    from pgworker.status.rows import ClientStatusRow

# Each one takes a connection, or a share of the Management API's rate limit.
SYNCS_AT_ONCE = 4


class Position(StrEnum):
    """How a tenant's recorded version compares with the canonical set."""

    CURRENT = "current"  # it has the newest canonical migration
    BEHIND = "behind"
    UNKNOWN = "unknown"  # it has a version that the canonical set lacks
    NONE = "none"  # it has no schema yet


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """One client's schema beside the canonical one.

    Attributes:
        missing: how many canonical migrations come after its version; None when its version is
            not in the set.
    """

    client_id: UUID
    client_name: str
    status: str | None
    schema_version: str | None
    head: str | None
    position: Position
    missing: int | None


@dataclass(frozen=True, slots=True)
class ClientSync:
    """The result of one client's sync: a report, or the error's message."""

    client_id: UUID
    report: SyncReport | None
    error: str | None = None


def schema_status(
    clients: Sequence[ClientStatusRow], canonical: CanonicalSet
) -> list[SchemaStatus]:
    """Compare rows of `client_status` with the canonical set. Pure: no tenant is contacted."""
    versions = [migration.version for migration in canonical.migrations]
    return [
        SchemaStatus(
            client_id=row.client_id,
            client_name=row.client_name,
            status=row.status,
            schema_version=row.schema_version,
            head=canonical.head,
            position=_position(row.schema_version, versions),
            missing=_missing(row.schema_version, versions),
        )
        for row in clients
    ]


def _position(version: str | None, versions: Sequence[str]) -> Position:
    if version is None:
        return Position.NONE
    if version not in versions:
        return Position.UNKNOWN
    return Position.CURRENT if version == versions[-1] else Position.BEHIND


def _missing(version: str | None, versions: Sequence[str]) -> int | None:
    if version is None:
        return len(versions)
    return len(versions) - 1 - versions.index(version) if version in versions else None


async def sync_client(
    platform: Platform, client_id: UUID, canonical: CanonicalSet, *, include_all: bool = False
) -> SyncReport:
    """Apply the migrations that the client's tenant lacks, and record its version. Safe to repeat.

    `include_all` applies files that are older than the newest applied one, too.

    Raises:
        JobError: of any kind; the message holds no secret of the tenant.
    """
    tenant_secrets = platform.secrets()
    intent = await Ledger(platform.pool, tenant_secrets).find_intent(client_id)
    if intent is None or intent.ref is None:
        raise Permanent("it has no tenant yet: provision it first")
    provider = platform.providers.named(intent.provider)
    steps = StepLedger(platform.pool, client_id, None)
    credentials = Credentials(await tenant_secrets.get_fields(client_id))
    try:
        async with provider.connect(intent.ref, credentials) as connection:
            report = await apply_migrations(
                connection, canonical, include_all=include_all, steps=steps
            )
        await steps.flush()
    except JobError as error:
        error.args = (scrub(str(error), credentials.fields.values()),)
        raise
    await platform.commands.set_schema_version(client_id, report.head)
    return report


async def sync_each(
    platform: Platform,
    client_ids: Sequence[UUID],
    canonical: CanonicalSet,
    report: Callable[[ClientSync], None],
    *,
    include_all: bool = False,
) -> None:
    """Sync several clients, `SYNCS_AT_ONCE` at a time; a client that fails doesn't stop the others.

    `report` is called with each result as it comes. When it raises, the syncs under way are
    cancelled.

    Raises:
        ExceptionGroup: an error that concerns all clients, such as `DatabaseUnreachable`, or one
            that `report` raised.
    """
    # Shared by the tasks: each takes the next client when it is done with one. A task for each
    # client, held back by a semaphore, would be thousands of tasks for a large fleet.
    remaining = iter(client_ids)

    async def sync_remaining() -> None:
        for client_id in remaining:
            try:
                synced = await sync_client(platform, client_id, canonical, include_all=include_all)
            except JobError as error:
                report(ClientSync(client_id, None, str(error)))
            else:
                report(ClientSync(client_id, synced))

    async with asyncio.TaskGroup() as syncs:
        for number in range(min(SYNCS_AT_ONCE, len(client_ids))):
            syncs.create_task(sync_remaining(), name=f"sync {number}")
