"""The run's server as a server of tenants, and the tenants of a test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from pgworker.providers.base import Tenant, TenantRequest
from pgworker.providers.postgres.provider import PostgresProvider
from tests.support.server import dsn_of

PASSWORD = "Kq7Zp2Wm9Xr4Tb6Vn8Lc3Hd5Jf1Gs0Ay"


@dataclass
class Server:
    """The run's server, and the tenants that a test creates on it."""

    dsn: str
    names: list[str] = field(default_factory=list)
    provider: PostgresProvider = field(init=False)

    def __post_init__(self) -> None:
        self.provider = PostgresProvider(self.dsn)

    def request(self, client_id: UUID | None = None) -> TenantRequest:
        client_id = client_id or uuid4()
        name = self.provider.tenant_name(client_id)
        self.names.append(name)
        return TenantRequest(client_id=client_id, name=name, database_password=PASSWORD)

    async def run(self, *statements: str, database: str = "postgres") -> None:
        connection = await asyncpg.connect(dsn_of(self.dsn, database))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def value(self, query: str, *arguments: Any) -> Any:
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()

    async def acl_of(self, database: str) -> str | None:
        acl = await self.value("select datacl::text from pg_database where datname = $1", database)
        return None if acl is None else str(acl)


async def as_tenant(tenant: Tenant, password: str = PASSWORD) -> asyncpg.Connection:
    """Log in as a customer would, with the stored DSN."""
    return await asyncpg.connect(tenant.url, password=password)


@dataclass
class Admin:
    name: str
    dsn: str
