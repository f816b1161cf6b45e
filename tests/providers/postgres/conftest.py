"""Fixtures of the tests about tenants' servers."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from tests.providers.postgres.tenants_server import PASSWORD, Admin, Server


@pytest.fixture
async def tenants_server(empty_database: str) -> AsyncIterator[Server]:
    using = Server(empty_database)
    yield using
    await using.provider.aclose()
    for name in using.names:
        await using.run(
            f"drop database if exists {name} with (force)", f"drop role if exists {name}"
        )


@pytest.fixture(params=["", "noinherit"], ids=["inherit", "noinherit"])
async def plain_admin(
    tenants_server: Server, request: pytest.FixtureRequest
) -> AsyncIterator[Admin]:
    """A role that may create databases and roles, and nothing else."""
    if request.param and int(await tenants_server.value("show server_version_num")) < 160000:
        pytest.skip("before PostgreSQL 16 a noinherit role can't act as the owner it is member of")
    name = f"admin_{secrets.token_hex(6)}"
    await tenants_server.run(
        f"create role {name} login createdb createrole {request.param} password '{PASSWORD}'"
    )
    parts = urlsplit(tenants_server.dsn)
    place = parts.netloc.rpartition("@")[2]
    yield Admin(
        name, parts._replace(netloc=f"{name}:{PASSWORD}@{place}", path="/postgres").geturl()
    )
    for tenant in tenants_server.names:
        await tenants_server.run(
            f"drop database if exists {tenant} with (force)", f"drop role if exists {tenant}"
        )
    await tenants_server.run(f"drop owned by {name}", f"drop role {name}")
