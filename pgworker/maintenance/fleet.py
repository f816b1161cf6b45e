"""The canonical schema over one tenant or all of them, for a person: look, and sync.

What a job does by itself when it provisions is `phases/schema_sync.py`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pgworker.errors import BadConfiguration, JobError, MigrationRefused, Permanent
from pgworker.providers.base import Credentials
from pgworker.provisioning.ledger import Ledger
from pgworker.provisioning.step_ledger import StepLedger
from pgworker.schema.apply import SyncReport, apply_migrations
from pgworker.schema.migrations import load_migrations
from pgworker.tenants.redaction import scrub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path
    from uuid import UUID

    from pgworker.context import Platform
    from pgworker.schema.migrations import CanonicalSet
    from pgworker.status.queries import Row

# Each one is a connection, or a share of the Management API's rate limit.
SYNCS_AT_ONCE = 4


class Position(StrEnum):
    """Where a tenant stands, by what is recorded of it."""

    CURRENT = "current"  # it has the newest canonical migration
    BEHIND = "behind"
    UNKNOWN = "unknown"  # it has a version that the canonical set lacks
    NONE = "none"  # it has no schema yet


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """One client's schema beside the canonical one.

    Attributes:
        missing: how many canonical migrations come after its version; None when it can't be told.
    """

    client_id: UUID
    client_name: str
    status: str
    schema_version: str | None
    head: str | None
    position: Position
    missing: int | None


@dataclass(frozen=True, slots=True)
class ClientSync:
    """What became of one client's sync: a report, or the error."""

    client_id: UUID
    report: SyncReport | None
    error: str | None = None


def canonical_set(directory: Path) -> CanonicalSet:
    """Read the canonical migrations.

    Raises:
        BadConfiguration: there is no such directory, or no migration in it.
        MigrationRefused: a file can't be used as it is.
    """
    try:
        return load_migrations(directory)
    except MigrationRefused as error:
        if directory.is_dir() and any(directory.glob("*.sql")):
            raise
        raise BadConfiguration(str(error)) from error


def schema_status(clients: Sequence[Row], canonical: CanonicalSet) -> list[SchemaStatus]:
    """Compare rows of `client_status` with the canonical set. Pure; asks no tenant."""
    versions = [migration.version for migration in canonical.migrations]
    return [
        SchemaStatus(
            client_id=row["client_id"],
            client_name=row["client_name"],
            status=row["status"],
            schema_version=row["schema_version"],
            head=canonical.head,
            position=_position(row["schema_version"], versions),
            missing=_missing(row["schema_version"], versions),
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
    """Apply what the client's tenant lacks, and record its version. Safe to repeat.

    Raises:
        JobError: of any kind; the message holds no secret of the tenant.
    """
    tenant_secrets = platform.secrets()
    intent = await Ledger(platform.pool, tenant_secrets).find_intent(client_id)
    if intent is None or intent.ref is None:
        raise Permanent("it has no tenant yet: provision it first")
    provider = platform.providers.named(intent.provider)
    steps = StepLedger(platform.pool, client_id, None)
    credentials = Credentials(await tenant_secrets.of_client(client_id))
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
    *,
    include_all: bool = False,
) -> AsyncGenerator[ClientSync]:
    """Sync several clients, a few at a time; yield each as it ends. One error stops nobody else.

    Close it when you leave before its end: the others are stopped then.
    """
    slots = asyncio.Semaphore(SYNCS_AT_ONCE)

    async def sync(client_id: UUID) -> ClientSync:
        async with slots:
            try:
                report = await sync_client(platform, client_id, canonical, include_all=include_all)
            except JobError as error:
                return ClientSync(client_id, None, str(error))
        return ClientSync(client_id, report)

    tasks = [asyncio.create_task(sync(each), name=f"sync {each}") for each in client_ids]
    try:
        for ended in asyncio.as_completed(tasks):
            yield await ended
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
