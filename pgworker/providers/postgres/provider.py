"""The `postgres` provider: a database and its owner role for each tenant, on one server."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from pgworker.db.queries import load
from pgworker.db.sqlstate import ALREADY_THERE, belongs_to
from pgworker.errors import CredentialRefused, Permanent
from pgworker.providers.base import (
    Credentials,
    Diagnosis,
    Observation,
    RemoteState,
    RemoteTenant,
    Tenant,
    TenantRequest,
    TenantState,
)
from pgworker.providers.postgres.scram import scram_verifier
from pgworker.providers.postgres.server import PostgresServer, identifier, literal
from pgworker.providers.postgres.templates import (
    Templates,
    copy,
    take_over,
)
from pgworker.tenants.at_once import at_once
from pgworker.tenants.connection import StatementError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from pgworker.providers.base import ProviderContext
    from pgworker.tenants.connection import TenantConnection
    from pgworker.tenants.steps import Steps

# Followed by the 32 hexadecimal digits of the client's id; `list_tenants` has the whole pattern.
PREFIX = "pgw_"

# CREATE DATABASE copies files: more at a time make each of them slower.
CREATES_AT_ONCE = 4


class PostgresQueries(NamedTuple):
    """The statements of `sql/queries/postgres_provider.sql`."""

    admin_rights: str
    find_database: str
    list_tenants: str
    create_roles: str
    create_database: str
    close_database: str
    set_password: str
    drop_database: str
    drop_role: str


QUERIES = load(PostgresQueries, "queries/postgres_provider.sql")


class _Rights(NamedTuple):
    """What our role lacks, by the words of `alter role`."""

    role: str
    missing: tuple[str, ...]


class PostgresProvider:
    """Makes tenants on the server of `admin_url`, whose role may create roles and databases.

    Every step of making one may be repeated from any line, and the look-up is final: the
    server's catalogue shows what was committed.
    """

    name = "postgres"
    lookup_is_final = True
    ready_checks = 1
    may_cost_money = False
    required_secrets = (("db_password",), ("dsn",))
    # No limit of CREATE DATABASE: a second create beside the first one meets its names.
    create_timeout = timedelta(seconds=65)

    def __init__(self, admin_url: str, *, migrations_dir: Path | None = None) -> None:
        """Take the URL of who makes tenants.

        Args:
            admin_url: on the tenants' server.
            migrations_dir: the canonical set, for templates; None makes every tenant from scratch.
        """
        self._server = PostgresServer(admin_url)
        self.templates = (
            None if migrations_dir is None else Templates(self._server, migrations_dir, QUERIES)
        )
        self._creating = asyncio.Semaphore(CREATES_AT_ONCE)

    @property
    def credential(self) -> str:
        """Name the login that we use, by user and server."""
        return self._server.credential

    async def check_credential(self) -> None:
        """Log in, and read what the role may do.

        Raises:
            CredentialRefused: the login is refused, or may not create tenants.
            Transient: the server doesn't say.
        """
        rights = await self._read_rights()
        if rights.missing:
            raise CredentialRefused(
                "the role of PGWORKER_TENANTS_URL may not create tenants (it needs createdb and "
                "createrole)",
                credential=self.credential,
            )

    async def diagnose(self) -> tuple[Diagnosis, ...]:
        """Log in, and check what the role may do."""
        rights = await self._read_rights()
        who = f"role {rights.role} at {self._server.host or 'the socket'}"
        if not rights.missing:
            return (Diagnosis(is_ok=True, detail=f"{who} may create databases and roles"),)
        detail = f"{who} has no right to create tenants"
        advice = f'alter role "{rights.role}" {" ".join(rights.missing)};'
        return (Diagnosis(is_ok=False, detail=detail, advice=advice),)

    async def _read_rights(self) -> _Rights:
        async with self._server.admin(fresh=True) as admin:
            (row,) = await admin.fetch(QUERIES.admin_rights)
        missing = {
            "createdb": not row["may_create_databases"],
            "createrole": not row["may_create_roles"],
        }
        return _Rights(row["role"], tuple(right for right, lacks in missing.items() if lacks))

    def tenant_name(self, client_id: UUID) -> str:
        """Return the name of the client's database, and of the role that owns it."""
        return f"{PREFIX}{client_id.hex}"

    async def find(self, name: str) -> Tenant | None:
        """Return the tenant when it is whole; a half-made one is finished by `create`.

        Raises:
            Permanent: a database of that name belongs to somebody else.
        """
        async with self._server.admin() as admin:
            found = await _look_up(admin, name)
        return self._tenant(name) if found is not None and _is_whole(found) else None

    async def list_tenants(self) -> tuple[RemoteTenant, ...]:
        """Return the databases and roles of our names; the server's catalogue is complete."""
        async with self._server.admin() as admin:
            rows = await admin.fetch(QUERIES.list_tenants)
        return tuple(_remote_tenant(row) for row in rows)

    async def create(self, request: TenantRequest) -> Tenant:
        """Create role and database, or what is missing of them.

        Raises:
            Permanent: a database of that name belongs to somebody else; it stays as it is.
        """
        name, password = request.name, request.database_password
        async with self._creating:
            async with self._server.admin() as admin:
                template, _ = await at_once(
                    self._find_template(),
                    admin.execute(QUERIES.create_roles.format(name=literal(name))),
                )
                # The server hashes too: meanwhile it can copy.
                is_copy, _ = await at_once(
                    self._make_database(admin, name, template), self.set_password(name, password)
                )
                if not is_copy:
                    await admin.execute(QUERIES.close_database.format(database=identifier(name)))
            if is_copy:
                async with self._server.admin(name) as inside:
                    # `await_project` comes next. We are in first: two logins hinder each other.
                    self._server.expect_tenant(name, password)
                    await take_over(inside, name)
        return self._tenant(name)

    async def _find_template(self) -> str | None:
        return None if self.templates is None else await self.templates.find()

    async def _make_database(
        self, admin: TenantConnection, name: str, template: str | None
    ) -> bool:
        """Make the database unless it is there; tell whether it is still its template's."""
        try:
            if template is not None and await copy(admin, template, name):
                return True
            await admin.execute(QUERIES.create_database.format(database=identifier(name)))
        except StatementError as error:
            if not belongs_to(error.sqlstate, ALREADY_THERE):
                raise
            # An earlier try's, or made in this very moment: whose is it? We touch ours only.
            found = await _look_up(admin, name)
            return found is not None and not found["is_taken_over"]
        return False

    async def observe(self, ref: str) -> Observation:
        """Look whether the database is there; one that is there is up."""
        if await self.find(ref) is None:
            return Observation(TenantState.GONE, "the server has no such database")
        return Observation(TenantState.READY, "the database is there")

    async def credentials(
        self,
        ref: str,
        database_password: str,
        steps: Steps,  # noqa: ARG002
    ) -> Credentials:
        """Return password and DSN; nothing has to be fetched."""
        dsn = self._server.dsn(ref, database_password)
        return Credentials({"db_password": database_password, "dsn": dsn})

    async def set_password(self, ref: str, database_password: str) -> None:
        """Give the owner this password, and the right to log in."""
        verifier = literal(await asyncio.to_thread(scram_verifier, database_password))
        async with self._server.admin() as admin:
            await admin.execute(
                QUERIES.set_password.format(database=identifier(ref), verifier=verifier)
            )

    def connect(
        self, ref: str, credentials: Credentials
    ) -> AbstractAsyncContextManager[TenantConnection]:
        """Connect to the tenant's database as its owner."""
        return self._server.tenant(ref, credentials.fields["db_password"])

    async def check_services(self, ref: str, credentials: Credentials) -> None:
        """Do nothing: a database has no services but itself, which has just answered."""

    async def delete(self, ref: str) -> None:
        """Drop database and role, data and all. Safe to repeat.

        Raises:
            Permanent: the database belongs to somebody else; it stays.
        """
        name = identifier(ref)
        async with self._server.admin() as admin:
            await _look_up(admin, ref)
            await admin.execute(QUERIES.drop_database.format(database=name))
            await admin.execute(QUERIES.drop_role.format(database=name))

    async def aclose(self) -> None:
        """Stop making a template, and close the sessions that are kept."""
        if self.templates is not None:
            await self.templates.aclose()
        await self._server.aclose()

    def _tenant(self, name: str) -> Tenant:
        return Tenant(ref=name, url=self._server.dsn(name, None), name=name)


def create_postgres_provider(context: ProviderContext) -> PostgresProvider:
    """Create the provider; tenants live on the platform's own server unless told otherwise."""
    url = context.settings.tenants_url
    return PostgresProvider(
        context.platform_dsn if url is None else url.get_secret_value(),
        migrations_dir=context.settings.migrations_dir,
    )


async def _look_up(admin: TenantConnection, name: str) -> dict[str, Any] | None:
    """Return what `find_database` tells of our database, or None when there is none.

    Raises:
        Permanent: it belongs to somebody else.
    """
    rows = await admin.fetch(QUERIES.find_database.format(name=literal(name)))
    if rows and rows[0]["owner"] != name:
        raise Permanent(
            f"database {name} is there already and belongs to role {rows[0]['owner']}, not to "
            f"{name}: pgworker did not make it and leaves it alone"
        )
    return rows[0] if rows else None


def _is_whole(row: dict[str, Any]) -> bool:
    return bool(row["is_closed"] and row["is_taken_over"])


def _remote_tenant(row: dict[str, Any]) -> RemoteTenant:
    name = row["name"]
    state, detail, repair = _judge(row)
    client_id = UUID(name.removeprefix(PREFIX))
    return RemoteTenant(name, name, client_id, state, detail, repair=repair)


def _judge(row: dict[str, Any]) -> tuple[RemoteState, str, str | None]:
    """Return a tenant's state, a description, and a repair, from its row of `list_tenants`."""
    name, owner = row["name"], row["owner"]
    database = f"database {name}"
    if owner is None:
        return RemoteState.PARTIAL, f"role {name} without its database", None
    if owner != name:
        take_back = f'alter database "{name}" owner to "{name}";'
        return RemoteState.FOREIGN, f"{database}, which belongs to role {owner}", take_back
    if row["is_invalid"]:
        return RemoteState.PARTIAL, f"{database}, which an interrupted drop left unusable", None
    if not row["is_closed"]:
        close = f'revoke all on database "{name}" from public;'
        return RemoteState.UNFINISHED, f"{database}, still open to every role of its server", close
    if not row["is_taken_over"]:
        return RemoteState.UNFINISHED, f"{database}, which still belongs to its template", None
    return RemoteState.COMPLETE, database, None
