"""The `postgres` provider: a database and its owner role for each tenant, on one server."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

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
from pgworker.providers.postgres.server import (
    POSTGRES_QUERIES,
    PostgresServer,
    identifier,
    literal,
)
from pgworker.providers.postgres.templates import Templates, copy_template, reassign_ownership
from pgworker.tenants.at_once import at_once
from pgworker.tenants.connection import StatementError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from pgworker.providers.base import ProviderContext
    from pgworker.tenants.connection import TenantConnection
    from pgworker.tenants.steps import Steps

# Followed by the 32 hexadecimal digits of the client's id.
PREFIX = "pgw_"
NAMES = "^pgw_[0-9a-f]{32}$"

# CREATE DATABASE copies files: more of them at once make each one slower.
MAX_CREATES = 4


class _Rights(NamedTuple):
    """The rights that our role lacks, as `alter role` calls them."""

    role: str
    missing: tuple[str, ...]


class _Row(NamedTuple):
    """A row of `list_tenants`; its comment explains the columns."""

    name: str
    owner: str | None
    is_invalid: bool | None
    is_closed: bool | None
    is_reassigned: bool | None


class PostgresProvider:
    """Creates tenants on the server of `admin_url`, whose role may create roles and databases.

    Every step of a create may be repeated from any line, and the look-up is final: the server's
    catalogue shows what was committed.
    """

    name = "postgres"
    lookup_is_final = True
    ready_checks = 1
    required_secrets = (("db_password",), ("dsn",))
    # CREATE DATABASE itself has no limit: a create may outlast its lease, because a second one
    # beside it fails at the name or finishes the same tenant.
    create_timeout = timedelta(seconds=65)

    def __init__(self, admin_url: str, *, migrations_dir: Path | None = None) -> None:
        """Connect nowhere yet.

        Args:
            admin_url: the login that creates tenants, on the tenants' server.
            migrations_dir: the canonical set, for templates; None creates all tenants without.
        """
        self._server = PostgresServer(admin_url)
        self.templates = None if migrations_dir is None else Templates(self._server, migrations_dir)
        self._creates = asyncio.Semaphore(MAX_CREATES)

    @property
    def credential(self) -> str:
        """An identifier of our login: its user and server, hashed."""
        return self._server.credential

    async def check_credential(self) -> None:
        """Log in, and read which rights the role has.

        Raises:
            CredentialRefused: the login is refused, or may not create tenants.
            Transient: the server didn't answer.
        """
        rights = await self._read_rights()
        if rights.missing:
            raise CredentialRefused(
                "the role of PGWORKER_TENANTS_URL may not create tenants (it needs createdb and "
                "createrole)",
                credential=self.credential,
            )

    async def diagnose(self) -> tuple[Diagnosis, ...]:
        """Log in, and check which rights the role has."""
        rights = await self._read_rights()
        who = f"role {rights.role} at {self._server.host or 'the socket'}"
        if not rights.missing:
            return (Diagnosis(is_ok=True, detail=f"{who} may create databases and roles"),)
        detail = f"{who} has no right to create tenants"
        advice = f'alter role "{rights.role}" {" ".join(rights.missing)};'
        return (Diagnosis(is_ok=False, detail=detail, advice=advice),)

    async def _read_rights(self) -> _Rights:
        async with self._server.admin(fresh=True) as admin:
            (row,) = await admin.fetch(POSTGRES_QUERIES.admin_rights)
        missing = {
            "createdb": not row["may_create_databases"],
            "createrole": not row["may_create_roles"],
        }
        return _Rights(row["role"], tuple(right for right, lacks in missing.items() if lacks))

    def tenant_name(self, client_id: UUID) -> str:
        """Return the name of the client's database, and of the role that owns it."""
        return f"{PREFIX}{client_id.hex}"

    async def find(self, name: str) -> Tenant | None:
        """Return the tenant when it is complete; `create` finishes an unfinished one.

        Raises:
            Permanent: a database of that name has another owner.
        """
        async with self._server.admin() as admin:
            row = await _find_database(admin, name)
        is_complete = row is not None and row.is_closed and row.is_reassigned
        return self._tenant(name) if is_complete else None

    async def list_tenants(self) -> tuple[RemoteTenant, ...]:
        """Return the databases and roles with names of ours; the catalogue is complete."""
        async with self._server.admin() as admin:
            rows = await _list(admin, f"~ '{NAMES}'")
        return tuple(_remote_tenant(row) for row in rows)

    async def create(self, request: TenantRequest) -> Tenant:
        """Create role and database, or the missing one of them.

        Raises:
            Permanent: a database of that name has another owner; it stays as it is.
        """
        name, password = request.name, request.database_password
        async with self._creates:
            async with self._server.admin() as admin:
                template, _ = await at_once(
                    self._find_template(),
                    admin.execute(POSTGRES_QUERIES.create_roles.format(name=literal(name))),
                )
                # At the same time: the server hashes the password as well, for milliseconds.
                is_copy, _ = await at_once(
                    self._create_database(admin, name, template), self.set_password(name, password)
                )
                if not is_copy:
                    await admin.execute(
                        POSTGRES_QUERIES.close_database.format(database=identifier(name))
                    )
            if is_copy:
                async with self._server.admin(name) as inside:
                    # The owner logs in for `await_project`, which comes next. Only now: of two
                    # logins to a new database at the same time each is slower.
                    self._server.prewarm_tenant(name, password)
                    await reassign_ownership(inside, name)
        return self._tenant(name)

    async def _find_template(self) -> str | None:
        return None if self.templates is None else await self.templates.find()

    async def _create_database(
        self, admin: TenantConnection, name: str, template: str | None
    ) -> bool:
        """Create the database unless it exists; return whether ownership must be reassigned."""
        try:
            if template is not None and await copy_template(admin, template, name):
                return True
            await admin.execute(POSTGRES_QUERIES.create_database.format(database=identifier(name)))
        except StatementError as error:
            if not belongs_to(error.sqlstate, ALREADY_THERE):
                raise
            # From an earlier attempt, or created at this moment: refuse another owner's.
            row = await _find_database(admin, name)
            return row is not None and not row.is_reassigned
        return False

    async def observe(self, ref: str) -> Observation:
        """Look whether the database exists; one that exists is up."""
        if await self.find(ref) is None:
            return Observation(TenantState.GONE, "the server has no such database")
        return Observation(TenantState.READY, "the database exists")

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
                POSTGRES_QUERIES.set_password.format(database=identifier(ref), verifier=verifier)
            )

    def connect(
        self, ref: str, credentials: Credentials
    ) -> AbstractAsyncContextManager[TenantConnection]:
        """Connect to the tenant's database as its owner."""
        return self._server.tenant(ref, credentials.fields["db_password"])

    async def check_services(self, ref: str, credentials: Credentials) -> None:
        """Do nothing: a database has no service but itself, which has just answered."""

    async def delete(self, ref: str) -> None:
        """Drop database and role with all data. Safe to repeat.

        Raises:
            Permanent: the database has another owner; it stays.
        """
        name = identifier(ref)
        async with self._server.admin() as admin:
            await _find_database(admin, ref)
            await admin.execute(POSTGRES_QUERIES.drop_database.format(database=name))
            await admin.execute(POSTGRES_QUERIES.drop_role.format(database=name))

    async def aclose(self) -> None:
        """Cancel the build of a template, and close all sessions."""
        if self.templates is not None:
            await self.templates.aclose()
        await self._server.aclose()

    def _tenant(self, name: str) -> Tenant:
        return Tenant(ref=name, url=self._server.dsn(name, None), name=name)


def create_postgres_provider(context: ProviderContext) -> PostgresProvider:
    """Create the provider; without PGWORKER_TENANTS_URL, tenants live on the platform's server."""
    url = context.settings.tenants_url
    return PostgresProvider(
        context.platform_dsn if url is None else url.get_secret_value(),
        migrations_dir=context.settings.migrations_dir,
    )


async def _list(admin: TenantConnection, matches: str) -> list[_Row]:
    rows = await admin.fetch(POSTGRES_QUERIES.list_tenants.format(matches=matches))
    return [_Row(**row) for row in rows]


async def _find_database(admin: TenantConnection, name: str) -> _Row | None:
    """Return the row of our database, or None when there is none.

    Raises:
        Permanent: it has another owner.
    """
    rows = [row for row in await _list(admin, f"= {literal(name)}") if row.owner is not None]
    if rows and rows[0].owner != name:
        raise Permanent(
            f"database {name} exists and belongs to role {rows[0].owner}, not to {name}: pgworker "
            "did not create it and leaves it alone"
        )
    return rows[0] if rows else None


def _remote_tenant(row: _Row) -> RemoteTenant:
    state, detail, repair = _judge(row)
    client_id = UUID(row.name.removeprefix(PREFIX))
    return RemoteTenant(row.name, row.name, client_id, state, detail, repair=repair)


def _judge(row: _Row) -> tuple[RemoteState, str, str | None]:
    """Return the state of a tenant, a description, and a repair."""
    name, database = row.name, f"database {row.name}"
    if row.owner is None:
        return RemoteState.PARTIAL, f"role {name} without its database", None
    if row.owner != name:
        take_back = f'alter database "{name}" owner to "{name}";'
        return RemoteState.FOREIGN, f"{database}, which belongs to role {row.owner}", take_back
    if row.is_invalid:
        return RemoteState.PARTIAL, f"{database}, which an interrupted drop left unusable", None
    if not row.is_closed:
        close = f'revoke all on database "{name}" from public;'
        return RemoteState.UNFINISHED, f"{database}, still open to every role of its server", close
    if not row.is_reassigned:
        return RemoteState.UNFINISHED, f"{database}, which still belongs to its template", None
    return RemoteState.COMPLETE, database, None
