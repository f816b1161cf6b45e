"""Bring one tenant's schema to the canonical set: no worker, queue or settings needed.

```python
from pathlib import Path

from pgworker.schema_sync import ClientConfig, apply_latest_schema

report = await apply_latest_schema(
    ClientConfig(
        dsn="postgresql://owner@localhost/acme",
        migrations_dir=Path("supabase/migrations"),
    )
)
print(report.head)
```
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgworker.errors import (
    BadConfiguration,
    JobError,
    MigrationFailed,
    MigrationRefused,
    Permanent,
    Transient,
)
from pgworker.schema.apply import MigrationNotice, SyncReport, apply_migrations
from pgworker.schema.directory import load_canonical_set
from pgworker.tenants.connection import StatementError, TenantConnection
from pgworker.tenants.postgres_connection import connect_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = [
    "BadConfiguration",
    "ClientConfig",
    "JobError",
    "MigrationFailed",
    "MigrationNotice",
    "MigrationRefused",
    "Permanent",
    "StatementError",
    "SyncReport",
    "TenantConnection",
    "Transient",
    "apply_latest_schema",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """How to reach one tenant, and the schema that it should have. Give `dsn` or `connection`.

    Attributes:
        dsn: of its PostgreSQL, directly or through a pooler in session mode.
        connection: an open connection to it; stays open.
        migrations_dir: directory in the layout of Supabase's CLI.
        include_all: also apply a file that is older than the newest applied one.
        client_id: for messages; nothing is looked up by it.
    """

    migrations_dir: Path
    dsn: str | None = field(default=None, repr=False)
    connection: TenantConnection | None = None
    include_all: bool = False
    client_id: str | None = None

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ClientConfig:
        """Return the configuration that a mapping with the same keys holds.

        Raises:
            BadConfiguration: a key is missing or not known.
        """
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(values.keys() - known)
        if unknown:
            raise BadConfiguration(
                f"client_config has unknown keys: {', '.join(unknown)}; "
                f"known are {', '.join(sorted(known))}"
            )
        if "migrations_dir" not in values:
            raise BadConfiguration("client_config lacks migrations_dir")
        return cls(**{**values, "migrations_dir": Path(values["migrations_dir"])})


async def apply_latest_schema(client_config: ClientConfig | Mapping[str, Any]) -> SyncReport:
    """Apply the canonical migrations that the tenant lacks; one transaction for each file.

    Safe to repeat and to run twice at once; a sync after a failed one begins with the file that
    failed. The history is Supabase's own, so that `supabase db push` agrees.

    Args:
        client_config: a `ClientConfig`, or a mapping with its keys.

    Raises:
        BadConfiguration: `client_config` has neither `dsn` nor `connection`, or both.
        MigrationRefused: the files can't be used, or don't fit the tenant's history.
        MigrationFailed: a statement failed; says file, statement, line and the server's message.
        Transient: the tenant can't be reached, or is busy; it may work later.
        Permanent: the tenant refuses the user, password or database.
    """
    config = client_config
    if isinstance(config, Mapping):
        config = ClientConfig.from_mapping(config)
    # The files first: a bad set shouldn't cost a connection.
    canonical = await load_canonical_set(Path(config.migrations_dir))
    async with _connected(config) as connection:
        return await apply_migrations(connection, canonical, include_all=config.include_all)


@asynccontextmanager
async def _connected(config: ClientConfig) -> AsyncIterator[TenantConnection]:
    if (config.dsn is None) == (config.connection is None):
        raise BadConfiguration("client_config needs either a dsn or a connection")
    if config.connection is not None:
        yield config.connection
        return
    assert config.dsn is not None
    async with connect_postgres(config.dsn) as connection:
        yield connection
