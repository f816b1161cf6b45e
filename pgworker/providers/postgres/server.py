"""The server that the tenants of the `postgres` provider share, and our own login on it."""

from __future__ import annotations

import hashlib
import re
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from pgworker.db.queries import load
from pgworker.db.sqlstate import (
    DATABASE_COMMAND_PASSING,
    INSUFFICIENT_PRIVILEGE,
    belongs_to,
)
from pgworker.errors import CredentialRefused, JobError, Permanent, Transient
from pgworker.providers.postgres.sessions import SessionPool
from pgworker.tenants.connection import StatementError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from pgworker.tenants.connection import TenantConnection

# Options of a URL that say who logs in, and to which database (libpq, chapter 32.1.2).
LOGIN_OPTIONS = frozenset({"user", "password", "passfile", "dbname", "service", "sslpassword"})


class PostgresQueries(NamedTuple):
    """The statements of `sql/queries/postgres_provider.sql`."""

    admin_rights: str
    list_tenants: str
    create_roles: str
    create_database: str
    close_database: str
    set_password: str
    drop_database: str
    drop_role: str


POSTGRES_QUERIES = load(PostgresQueries, "queries/postgres_provider.sql")


class PostgresServer:
    """Opens sessions on the server of a URL: as the admin who creates tenants, or as a tenant."""

    def __init__(self, admin_url: str) -> None:
        """Take the admin's URL; connect nowhere yet."""
        self._admin_url = admin_url
        self._sessions = SessionPool()

    @property
    def credential(self) -> str:
        """An identifier of the admin's login: its user and server, hashed."""
        parts = urlsplit(self._admin_url)
        options = dict(parse_qsl(parts.query))
        user = parts.username or options.get("user", "")
        login = f"{user}@{self.host}:{options.get('port', '')}"
        return f"postgres:{hashlib.sha256(login.encode()).hexdigest()[:8]}"

    @property
    def host(self) -> str:
        """The hosts and ports of the URL, without the login; empty for a socket."""
        parts = urlsplit(self._admin_url)
        # Not `parts.port`: there may be several hosts, also among the options.
        return parts.netloc.rpartition("@")[2] or dict(parse_qsl(parts.query)).get("host", "")

    @asynccontextmanager
    async def admin(
        self, database: str | None = None, *, fresh: bool = False
    ) -> AsyncIterator[TenantConnection]:
        """Open a session of the admin; every refusal becomes a `JobError`.

        Args:
            database: by default that of the URL. Sessions in any other database aren't kept.
            fresh: log in, even if an idle session is there.
        """
        url = self._admin_url if database is None else self._admin_url_for(database)
        async with AsyncExitStack() as stack:
            try:
                admin = await stack.enter_async_context(
                    self._sessions.acquire(url, fresh=fresh, keep=database is None)
                )
            except Permanent as error:
                # Every other job would be refused as well.
                raise CredentialRefused(
                    f"PGWORKER_TENANTS_URL: {error}", credential=self.credential
                ) from error
            try:
                yield admin
            except StatementError as error:
                raise self._job_error(error) from error

    def tenant(
        self, ref: str, password: str, *, keep: bool = True
    ) -> AbstractAsyncContextManager[TenantConnection]:
        """Open a session of a tenant's owner in its database; `keep` as `SessionPool.acquire`."""
        return self._sessions.acquire(self.dsn(ref, password), keep=keep)

    def prewarm_tenant(self, ref: str, password: str) -> None:
        """Start to log in as the owner, who will need a session soon."""
        self._sessions.prewarm(self.dsn(ref, password))

    def dsn(self, ref: str, password: str | None) -> str:
        """Return the tenant's DSN on the server, with the server's own options.

        The admin's login is left out, which may be among the options of the URL as well.
        """
        parts = urlsplit(self._admin_url)
        hosts = parts.netloc.rpartition("@")[2]
        login = ref if password is None else f"{ref}:{password}"
        return urlunsplit(
            (parts.scheme, f"{login}@{hosts}", f"/{ref}", self._options_without(LOGIN_OPTIONS), "")
        )

    async def aclose(self) -> None:
        """Close all sessions."""
        await self._sessions.aclose()

    def _admin_url_for(self, database: str) -> str:
        query = self._options_without(frozenset({"dbname"}))
        return urlsplit(self._admin_url)._replace(path=f"/{database}", query=query).geturl()

    def _options_without(self, names: frozenset[str]) -> str:
        return "&".join(
            option
            for option in urlsplit(self._admin_url).query.split("&")
            if unquote(option.partition("=")[0]) not in names
        )

    def _job_error(self, error: StatementError) -> JobError:
        if belongs_to(error.sqlstate, INSUFFICIENT_PRIVILEGE):
            return CredentialRefused(
                f"the role of PGWORKER_TENANTS_URL may not do this: {error.message} (it needs "
                "createdb and createrole)",
                credential=self.credential,
            )
        if belongs_to(error.sqlstate, DATABASE_COMMAND_PASSING):
            return Transient(f"the tenants' server can't do this now: {error.message}")
        return Permanent(f"the tenants' server refuses: {error.message} [{error.sqlstate}]")


def literal(name: str) -> str:
    """Return a name or a verifier as a literal.

    Raises:
        Permanent: it isn't one of ours.
    """
    # Names are pgw_ and hexadecimal digits, verifiers base64. Neither needs escaping, and any
    # other text is refused.
    if not re.fullmatch(r"[\w$:+/=-]+", name):
        raise Permanent(f"{name!r} is not a name that pgworker gives")
    return f"'{name}'"


def identifier(name: str) -> str:
    """Return the name of a database or role as an identifier.

    Raises:
        Permanent: it isn't one of ours.
    """
    if not re.fullmatch(r"[a-z0-9_]{1,63}", name):
        raise Permanent(f"{name!r} is not a name that pgworker gives to databases")
    return f'"{name}"'
