"""The `postgres` provider: a database and its owner role for each tenant, on one server."""

from __future__ import annotations

import asyncio
import hashlib
import re
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit
from uuid import UUID

from pgworker.db.queries import load
from pgworker.errors import CredentialRefused, JobError, Permanent, Transient
from pgworker.tenants.connection import StatementError, TenantConnection
from pgworker.tenants.postgres_connection import connect_postgres
from pgworker.tenants.providers.base import (
    Credentials,
    Observation,
    Sighting,
    SightingState,
    Tenant,
    TenantRequest,
    TenantState,
)
from pgworker.tenants.scram import scram_verifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pgworker.tenants.steps import Steps

# Followed by the 32 hexadecimal digits of the client's id; `list_ours` has the whole pattern.
PREFIX = "pgw_"

# CREATE DATABASE copies files: more at a time make each of them slower.
CREATES_AT_ONCE = 4

# Options of a URL that tell who logs in, and where to (libpq, chapter 32.1.2).
OF_OUR_LOGIN = frozenset({"user", "password", "passfile", "dbname", "service", "sslpassword"})

# SQLSTATEs (PostgreSQL 18, appendix A).
DUPLICATE_DATABASE = "42P04"
INSUFFICIENT_PRIVILEGE = "42501"
# In use, cancelled; or two sessions that change one role at once.
_PASSING_HERE = ("55", "57", "23505", "XX000")


class PostgresQueries(NamedTuple):
    """The statements of `sql/queries/postgres_provider.sql`."""

    maker_rights: str
    find_database: str
    list_ours: str
    create_roles: str
    create_database: str
    close_database: str
    set_password: str
    drop_database: str
    drop_role: str


QUERIES = load(PostgresQueries, "queries/postgres_provider.sql")


class PostgresProvider:
    """Makes tenants on the server of `admin_url`, whose role may create roles and databases.

    Every step of making one may be repeated from any line, and the look-up is final: the
    server's catalogue shows what was committed.
    """

    name = "postgres"
    lookup_is_final = True
    ready_looks = 1

    def __init__(self, admin_url: str) -> None:
        self._admin_url = admin_url
        self._creating = asyncio.Semaphore(CREATES_AT_ONCE)

    @property
    def credential(self) -> str:
        """Name the login that we use, by user and server."""
        parts = urlsplit(self._admin_url)
        options = dict(parse_qsl(parts.query))
        user = parts.username or options.get("user", "")
        # Not `parts.port`: there may be several hosts, also among the options.
        hosts = parts.netloc.rpartition("@")[2] or options.get("host", "")
        place = f"{user}@{hosts}:{options.get('port', '')}"
        return f"postgres:{hashlib.sha256(place.encode()).hexdigest()[:8]}"

    async def prove_access(self) -> None:
        """Log in, and find the right to make tenants.

        Raises:
            CredentialRefused: the login is refused, or may not make tenants.
            Transient: the server doesn't say.
        """
        async with self._admin() as admin:
            (rights,) = await admin.fetch(QUERIES.maker_rights)
        if not (rights["may_create_databases"] and rights["may_create_roles"]):
            raise CredentialRefused(
                "the role of PGWORKER_TENANTS_URL may not make tenants (it needs createdb and "
                "createrole)",
                credential=self.credential,
            )

    def tenant_name(self, client_id: UUID) -> str:
        """Return the name of the client's database, and of the role that owns it."""
        return f"{PREFIX}{client_id.hex}"

    async def find(self, name: str) -> Tenant | None:
        """Return the tenant when it is whole; a half-made one is finished by `create`.

        Raises:
            Permanent: a database of that name belongs to somebody else.
        """
        query = QUERIES.find_database.format(name=_literal(name))
        async with self._admin() as admin:
            found = await _look_up(admin, query, name)
        if found is None:
            return None
        return self._tenant(name) if found["is_closed"] else None

    async def list_ours(self) -> tuple[Sighting, ...]:
        """Return the databases and roles of our names; the server's catalogue is complete."""
        async with self._admin() as admin:
            rows = await admin.fetch(QUERIES.list_ours)
        return tuple(_sighting(row) for row in rows)

    async def create(self, request: TenantRequest) -> Tenant:
        """Create role and database, or what is missing of them.

        Raises:
            Permanent: a database of that name belongs to somebody else; it stays as it is.
        """
        name = request.name
        database = _identifier(name)
        look = QUERIES.find_database.format(name=_literal(name))
        roles = QUERIES.create_roles.format(
            name=_literal(name), verifier=_literal(scram_verifier(request.database_password))
        )
        async with self._creating, self._admin() as admin:
            await _look_up(admin, look, name)
            await admin.execute(roles)
            try:
                await admin.execute(QUERIES.create_database.format(database=database))
            except StatementError as error:
                if error.sqlstate != DUPLICATE_DATABASE:
                    raise
                # Whose is it, made in this very moment? We touch ours only.
                await _look_up(admin, look, name)
            await admin.execute(QUERIES.close_database.format(database=database))
        tenant = await self.find(name)
        if tenant is None:
            raise Transient(f"database {name} was created and is not there")
        return tenant

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
        dsn = self._dsn(ref, database_password)
        return Credentials({"db_password": database_password, "dsn": dsn})

    async def set_password(self, ref: str, database_password: str) -> None:
        """Give the owner this password."""
        verifier = _literal(scram_verifier(database_password))
        async with self._admin() as admin:
            await admin.execute(
                QUERIES.set_password.format(database=_identifier(ref), verifier=verifier)
            )

    @asynccontextmanager
    async def connect(self, ref: str, credentials: Credentials) -> AsyncIterator[TenantConnection]:
        """Connect to the tenant's database as its owner."""
        async with connect_postgres(self._dsn(ref, credentials.fields["db_password"])) as tenant:
            yield tenant

    async def check_services(self, ref: str, credentials: Credentials) -> None:
        """Do nothing: a database has no services but itself, which has just answered."""

    async def delete(self, ref: str) -> None:
        """Drop database and role, data and all. Safe to repeat.

        Raises:
            Permanent: the database belongs to somebody else; it stays.
        """
        name = _identifier(ref)
        look = QUERIES.find_database.format(name=_literal(ref))
        async with self._admin() as admin:
            await _look_up(admin, look, ref)
            await admin.execute(QUERIES.drop_database.format(database=name))
            await admin.execute(QUERIES.drop_role.format(database=name))

    async def aclose(self) -> None:
        """Do nothing: no connection outlives its use."""

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[TenantConnection]:
        """Connect as the one who makes tenants; every refusal becomes a `JobError`."""
        async with AsyncExitStack() as stack:
            try:
                admin = await stack.enter_async_context(connect_postgres(self._admin_url))
            except Permanent as error:
                # Our own login is refused, and so it is for every other job.
                raise CredentialRefused(
                    f"PGWORKER_TENANTS_URL: {error}", credential=self.credential
                ) from error
            try:
                yield admin
            except StatementError as error:
                raise self._job_error(error) from error

    def _job_error(self, error: StatementError) -> JobError:
        if error.sqlstate == INSUFFICIENT_PRIVILEGE:
            return CredentialRefused(
                f"the role of PGWORKER_TENANTS_URL may not do this: {error.message} (it needs "
                "createdb and createrole)",
                credential=self.credential,
            )
        if error.is_passing or (error.sqlstate or "").startswith(_PASSING_HERE):
            return Transient(f"the tenants' server can't do it now: {error.message}")
        return Permanent(f"the tenants' server refuses: {error.message} [{error.sqlstate}]")

    def _tenant(self, name: str) -> Tenant:
        return Tenant(ref=name, url=self._dsn(name, None), name=name)

    def _dsn(self, ref: str, password: str | None) -> str:
        """Return the tenant's DSN on our server, with the server's own options.

        Nothing of our own login goes along: options of a URL may hold it as well.
        """
        parts = urlsplit(self._admin_url)
        hosts = parts.netloc.rpartition("@")[2]
        login = ref if password is None else f"{ref}:{password}"
        options = [
            option
            for option in parts.query.split("&")
            if unquote(option.partition("=")[0]) not in OF_OUR_LOGIN
        ]
        return urlunsplit((parts.scheme, f"{login}@{hosts}", f"/{ref}", "&".join(options), ""))


async def _look_up(admin: TenantConnection, query: str, name: str) -> dict[str, Any] | None:
    """Return what `find_database` tells of our database, or None when there is none.

    Raises:
        Permanent: it belongs to somebody else.
    """
    rows = await admin.fetch(query)
    if rows and rows[0]["owner"] != name:
        raise Permanent(
            f"database {name} is there already and belongs to role {rows[0]['owner']}, not to "
            f"{name}: pgworker did not make it and leaves it alone"
        )
    return rows[0] if rows else None


def _sighting(row: dict[str, Any]) -> Sighting:
    name = row["name"]
    state, detail = _judge(row)
    return Sighting(name, name, UUID(name.removeprefix(PREFIX)), state, detail)


def _judge(row: dict[str, Any]) -> tuple[SightingState, str]:
    """Return how whole a tenant is, from its row of `list_ours`."""
    name, owner = row["name"], row["owner"]
    if owner is None:
        return SightingState.REMNANT, f"role {name} without its database"
    if owner != name:
        return SightingState.FOREIGN, f"database {name}, which belongs to role {owner}"
    if row["is_invalid"]:
        return SightingState.REMNANT, f"database {name}, which an interrupted drop left unusable"
    if not row["is_closed"]:
        return SightingState.UNFINISHED, f"database {name}, still open to every role of its server"
    return SightingState.WHOLE, f"database {name}"


def _literal(name: str) -> str:
    # Names are pgw_ and hexadecimal digits, verifiers base64: nothing needs escaping, and
    # whatever would is refused.
    if not re.fullmatch(r"[\w$:+/=-]+", name):
        raise Permanent(f"{name!r} is not a name that pgworker gives")
    return f"'{name}'"


def _identifier(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{1,63}", name):
        raise Permanent(f"{name!r} is not a name that pgworker gives to databases")
    return f'"{name}"'
