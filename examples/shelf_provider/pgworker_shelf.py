"""A provider for pgworker that creates nothing: it hands out databases from a shelf.

An administrator prepares databases and lists them in a table of the platform's database:

    create table shelf (
        database text primary key,
        dsn text not null,
        tenant text unique  -- null: free
    );
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from pgworker.providers import (
    Credentials,
    Diagnosis,
    Observation,
    Permanent,
    ProviderContext,
    QuotaExceeded,
    RemoteState,
    RemoteTenant,
    Tenant,
    TenantRequest,
    TenantState,
    Transient,
    connect_postgres,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from pgworker.providers import Steps, TenantConnection

PREFIX = "shelf-"

FIND = "select database, dsn, tenant from shelf where tenant = $1"
LIST = "select database, dsn, tenant from shelf where tenant is not null"
COUNT_FREE = "select count(*) as free from shelf where tenant is null"
# Workers that take at the same time skip each other's rows. One client can't get two databases:
# `tenant` is unique.
TAKE = """
update shelf set tenant = $1
where database = (
    select database from shelf where tenant is null limit 1 for update skip locked
)
returning database, dsn, tenant
"""
REMOVE = "delete from shelf where tenant = $1"


def create_provider(context: ProviderContext) -> ShelfProvider:
    """The entry point: create the provider for one process. Don't connect yet."""
    return ShelfProvider(context.platform_dsn)


class ShelfProvider:
    """Assigns a prepared database to each client. A tenant's ref is its name."""

    name = "shelf"
    lookup_is_final = True  # a table doesn't lag behind
    ready_checks = 1
    required_secrets = (("dsn",),)
    create_timeout = timedelta(seconds=30)
    credential = "shelf:platform"

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def check_credential(self) -> None:
        await self._fetch(COUNT_FREE)

    async def diagnose(self) -> tuple[Diagnosis, ...]:
        (row,) = await self._fetch(COUNT_FREE)
        advice = None if row["free"] else "prepare databases and insert them into table shelf"
        return (Diagnosis(row["free"] > 0, f"{row['free']} databases are free", advice),)

    def tenant_name(self, client_id: UUID) -> str:
        return f"{PREFIX}{client_id}"

    async def find(self, name: str) -> Tenant | None:
        rows = await self._fetch(FIND, name)
        return Tenant(ref=name, url=rows[0]["database"], name=name) if rows else None

    async def list_tenants(self) -> tuple[RemoteTenant, ...]:
        return tuple(
            RemoteTenant(
                ref=row["tenant"],
                name=row["tenant"],
                client_id=UUID(row["tenant"].removeprefix(PREFIX)),
                state=RemoteState.COMPLETE,
                detail=f"database {row['database']}",
            )
            for row in await self._fetch(LIST)
        )

    async def create(self, request: TenantRequest) -> Tenant:
        rows = await self._fetch(TAKE, request.name)
        if not rows:
            raise QuotaExceeded("no database is free: insert more into table shelf")
        return Tenant(ref=request.name, url=rows[0]["database"], name=request.name)

    async def observe(self, ref: str) -> Observation:
        if await self.find(ref) is None:
            return Observation(TenantState.GONE, "not in table shelf")
        return Observation(TenantState.READY, "in table shelf")

    async def credentials(self, ref: str, database_password: str, steps: Steps) -> Credentials:
        rows = await self._fetch(FIND, ref)
        if not rows:
            raise Permanent(f"{ref} is not in table shelf")
        return Credentials({"dsn": rows[0]["dsn"]})

    async def set_password(self, ref: str, database_password: str) -> None:
        """Keep the administrator's password: it is part of the DSN."""

    def connect(
        self, ref: str, credentials: Credentials
    ) -> AbstractAsyncContextManager[TenantConnection]:
        return connect_postgres(credentials.fields["dsn"])

    async def check_services(self, ref: str, credentials: Credentials) -> None:
        """A database has no other services."""

    async def delete(self, ref: str) -> None:
        """Take the database off the shelf: the administrator drops it."""
        await self._fetch(REMOVE, ref)

    async def aclose(self) -> None:
        """Nothing stays open."""

    async def _fetch(self, query: str, *arguments: object) -> list[Any]:
        async with self._connected() as connection:
            return list(await connection.fetch(query, *arguments))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        """Connect to the platform's database.

        A provider raises job errors only. `Transient` is right for all of these: each statement
        may be repeated.
        """
        try:
            connection = await asyncpg.connect(self._dsn, timeout=10, command_timeout=10)
            try:
                yield connection
            finally:
                await connection.close()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Transient(f"table shelf can't be used: {error}") from error
