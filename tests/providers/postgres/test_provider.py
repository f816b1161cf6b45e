"""The `postgres` provider, on a real server."""

from __future__ import annotations

import asyncio
import secrets
import socket
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from pgworker.errors import CredentialRefused, Permanent, Transient
from pgworker.providers.base import Provider, TenantState
from pgworker.providers.postgres.provider import PostgresProvider
from pgworker.providers.postgres.scram import scram_verifier
from pgworker.providers.postgres.server import POSTGRES_QUERIES
from pgworker.providers.postgres.sessions import RESET
from pgworker.tenants.steps import NoSteps
from tests.providers.postgres.tenants_server import PASSWORD, Admin, Server, as_tenant
from tests.support.server import dsn_of


@pytest.fixture
def server(tenants_server: Server) -> Server:
    return tenants_server


def test_it_is_a_provider() -> None:
    provider: Provider = PostgresProvider("postgresql://localhost/postgres")

    assert provider.lookup_is_final


# -- creating ---------------------------------------------------------------------------------


async def test_a_tenant_is_a_database_owned_by_a_role_of_its_name(server: Server) -> None:
    request = server.request()

    tenant = await server.provider.create(request)

    assert tenant.ref == tenant.name == f"pgw_{request.client_id.hex}"
    connection = await as_tenant(tenant)
    row = await connection.fetchrow(
        "select current_database()::text, current_user::text, r.rolsuper, r.rolcreatedb,"
        " r.rolcreaterole from pg_roles r where rolname = current_user"
    )
    await connection.close()
    assert tuple(row) == (tenant.ref, tenant.ref, False, False, False)
    assert await server.provider.find(request.name) == tenant
    assert (await server.provider.observe(tenant.ref)).state is TenantState.READY


async def test_the_stored_dsn_logs_in_and_the_shown_one_has_no_password(server: Server) -> None:
    tenant = await server.provider.create(server.request())

    fields = (await server.provider.credentials(tenant.ref, PASSWORD, NoSteps())).fields
    connection = await asyncpg.connect(fields["dsn"])
    assert await connection.fetchval("select current_user") == tenant.ref
    await connection.close()
    assert fields.keys() == {"db_password", "dsn"}
    assert urlsplit(tenant.url).password is None


STEPS = ("roles", "password", "database", "closed")


@pytest.mark.parametrize("done", range(len(STEPS) + 1), ids=("nothing", *STEPS))
async def test_a_create_continues_from_any_step(server: Server, done: int) -> None:
    request = server.request()
    statements = [
        POSTGRES_QUERIES.create_roles.format(name=f"'{request.name}'"),
        POSTGRES_QUERIES.set_password.format(
            database=f'"{request.name}"', verifier=f"'{scram_verifier('an earlier one')}'"
        ),
        POSTGRES_QUERIES.create_database.format(database=f'"{request.name}"'),
        POSTGRES_QUERIES.close_database.format(database=f'"{request.name}"'),
    ]
    await server.run(*statements[:done])

    found = await server.provider.find(request.name)
    assert (found is not None) == (done == len(STEPS))
    tenant = await server.provider.create(request)

    await (await as_tenant(tenant)).close()
    assert await server.provider.find(request.name) == tenant
    assert "{=" not in (await server.acl_of(tenant.ref) or "{=")


@pytest.mark.parametrize("statement", range(len(STEPS)))
async def test_an_interrupted_create_is_finished_by_the_next_attempt(
    server: Server, statement: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies after the n-th statement has run, before its result is known."""
    from pgworker.tenants import postgres_connection

    class Killed(BaseException):
        pass

    genuine = postgres_connection.PostgresTenantConnection.execute
    seen = []

    async def execute(self: Any, sql: str) -> None:
        await genuine(self, sql)
        if sql == RESET:  # a session that is reset, at any time
            return
        seen.append(sql)
        if len(seen) == statement + 1:
            raise Killed

    request = server.request()
    with monkeypatch.context() as patch:
        patch.setattr(postgres_connection.PostgresTenantConnection, "execute", execute)
        with pytest.raises(Killed):
            await server.provider.create(request)

    tenant = await server.provider.find(request.name) or await server.provider.create(request)
    await (await as_tenant(tenant)).close()


async def test_eight_tenants_at_once_are_eight_databases(server: Server) -> None:
    provider = server.provider
    requests = [server.request() for _ in range(8)]

    tenants = await asyncio.gather(*(provider.create(request) for request in requests))

    assert [tenant.name for tenant in tenants] == [request.name for request in requests]
    for tenant in tenants:
        await (await as_tenant(tenant)).close()


async def test_two_creates_of_one_tenant_at_once_make_one_tenant(server: Server) -> None:
    request = server.request()

    others = [PostgresProvider(server.dsn) for _ in range(2)]
    results = await asyncio.gather(
        *(other.create(request) for other in others), return_exceptions=True
    )
    for other in others:
        await other.aclose()

    # A conflict of both over one role is transient.
    failures = [each for each in results if isinstance(each, BaseException)]
    assert all(isinstance(failure, Transient) for failure in failures), results
    assert len(failures) < 2
    await (await as_tenant(await server.provider.create(request))).close()


# -- owners -----------------------------------------------------------------------------------


async def test_tenants_cannot_connect_to_each_others_databases(server: Server) -> None:
    mine, other = [await server.provider.create(server.request()) for _ in range(2)]

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="CONNECT"):
        await asyncpg.connect(dsn_of(mine.url, other.ref), password=PASSWORD)


async def test_a_database_of_another_owner_is_refused_by_name_and_left_as_it_was(
    server: Server,
) -> None:
    request = server.request()
    await server.run(f"create database {request.name}")

    with pytest.raises(Permanent, match=f"{request.name} exists and belongs to"):
        await server.provider.find(request.name)
    with pytest.raises(Permanent, match=f"{request.name} exists and belongs to"):
        await server.provider.create(request)

    assert await server.acl_of(request.name) is None


async def test_a_database_of_another_owner_is_not_deleted(server: Server) -> None:
    request = server.request()
    await server.run(f"create database {request.name}")

    with pytest.raises(Permanent, match="belongs to role"):
        await server.provider.delete(request.name)

    assert await server.value("select true from pg_database where datname = $1", request.name)


async def test_a_name_that_pgworker_does_not_give_is_refused_without_blaming_the_login(
    server: Server,
) -> None:
    with pytest.raises(Permanent, match="is not a name that pgworker gives"):
        await server.provider.find("x'; drop database postgres; --")
    with pytest.raises(Permanent, match="is not a name that pgworker gives"):
        await server.provider.delete('x"; drop database postgres; --')


# -- deleting ---------------------------------------------------------------------------------


async def test_a_delete_drops_database_and_role_even_while_in_use(server: Server) -> None:
    tenant = await server.provider.create(server.request())
    connection = await as_tenant(tenant)
    await connection.execute("create table public.kept (id int)")

    await server.provider.delete(tenant.ref)
    await server.provider.delete(tenant.ref)

    connection.terminate()
    assert await server.value("select count(*) from pg_roles where rolname = $1", tenant.ref) == 0
    assert await server.provider.find(tenant.name) is None
    assert (await server.provider.observe(tenant.ref)).state is TenantState.GONE


# -- the login that creates them --------------------------------------------------------------


async def test_createdb_and_createrole_are_enough(server: Server, plain_admin: Admin) -> None:
    # The roles that migrations grant to belong to the server: they may not exist yet.
    provider = PostgresProvider(plain_admin.dsn)
    request = server.request()

    tenant = await provider.create(request)
    assert await provider.create(request) == tenant
    assert await provider.find(request.name) == tenant

    fields = (await provider.credentials(tenant.ref, PASSWORD, NoSteps())).fields
    await (await asyncpg.connect(fields["dsn"])).close()
    await provider.delete(tenant.ref)
    assert await provider.find(request.name) is None
    await provider.aclose()


async def test_the_credential_is_checked_with_a_login_and_not_with_an_idle_session(
    server: Server, plain_admin: Admin
) -> None:
    provider = PostgresProvider(plain_admin.dsn)
    await provider.check_credential()
    await server.run(f"alter role {plain_admin.name} nologin")

    with pytest.raises(CredentialRefused, match="not permitted to log in"):
        await provider.check_credential()

    await provider.aclose()


async def test_a_login_that_may_not_create_is_refused_with_what_it_needs(server: Server) -> None:
    weak = await server.provider.create(server.request())
    dsn = (await server.provider.credentials(weak.ref, PASSWORD, NoSteps())).fields["dsn"]

    with pytest.raises(CredentialRefused, match="needs createdb and createrole"):
        await PostgresProvider(dsn).create(server.request())


async def test_a_wrong_admin_password_refuses_the_credential_and_is_not_shown(
    server: Server,
) -> None:
    wrong = urlsplit(server.dsn)
    place = wrong.netloc.rpartition("@")[2]
    provider = PostgresProvider(
        wrong._replace(netloc=f"unknown_{secrets.token_hex(4)}:n0t-the-password@{place}").geturl()
    )

    with pytest.raises(CredentialRefused, match="PGWORKER_TENANTS_URL") as raised:
        await provider.find(server.request().name)

    assert raised.value.credential == provider.credential
    assert "n0t-the-password" not in str(raised.value)


async def test_an_unreachable_server_is_a_transient_error() -> None:
    # This socket has the port, so that no other program gets it, and doesn't listen.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        provider = PostgresProvider(f"postgresql://u:pw@127.0.0.1:{silent.getsockname()[1]}/x")

        with pytest.raises(Transient, match="can't be reached"):
            await provider.find("pgw_x")


# -- the URL ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("admin", "expected"),
    [
        ("postgresql://a:pw@h/postgres", "postgresql://{}@h/{}"),
        ("postgresql://a:pw@h:6000/x?sslmode=require", "postgresql://{}@h:6000/{}?sslmode=require"),
        ("postgresql://a:pw@[::1]:6000/x", "postgresql://{}@[::1]:6000/{}"),
        (
            "postgres://a@h1:5432,h2:5433/x?target_session_attrs=read-write",
            "postgres://{}@h1:5432,h2:5433/{}?target_session_attrs=read-write",
        ),
        ("postgresql://a:p%40w@h/x", "postgresql://{}@h/{}"),
        ("postgresql:///x?host=/run/postgresql", "postgresql://{}@/{}?host=/run/postgresql"),
        ("postgresql://h/x?options=-c%20jit%3Doff", "postgresql://{}@h/{}?options=-c%20jit%3Doff"),
        (
            "postgresql://h/x?user=a&password=S3cret&sslmode=require&dbname=x&passfile=/p",
            "postgresql://{}@h/{}?sslmode=require",
        ),
    ],
)
async def test_a_tenants_dsn_keeps_hosts_and_options_and_nothing_of_the_admins_login(
    admin: str, expected: str
) -> None:
    provider = PostgresProvider(admin)

    fields = (await provider.credentials("pgw_1", PASSWORD, NoSteps())).fields

    assert fields["dsn"] == expected.format(f"pgw_1:{PASSWORD}", "pgw_1")


def test_the_credential_identifies_a_login_without_revealing_it() -> None:
    urls = [
        "postgresql://a:S3cret@h/x",
        "postgresql://b:S3cret@h/x",
        "postgresql://a:S3cret@h:6000/x",
        "postgresql://a:S3cret@h1:5432,h2:5433/x",
        "postgresql://a:S3cret@[::1]/x",
        "postgresql:///x?host=/run/postgresql",
        "postgresql:///x?host=/run/postgresql&user=c&password=S3cret",
    ]
    credentials = [PostgresProvider(url).credential for url in urls]

    assert len(set(credentials)) == len(urls)
    assert all(name.startswith("postgres:") and "S3cret" not in name for name in credentials)
    changed = PostgresProvider("postgresql://a:an0ther@h/x").credential
    assert changed == credentials[0]
