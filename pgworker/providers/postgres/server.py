"""The server that the tenants of the `postgres` provider share, and our own login on it."""

from __future__ import annotations

import hashlib
import re
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from pgworker.db.sqlstate import (
    DATABASE_COMMAND_PASSING,
    INSUFFICIENT_PRIVILEGE,
    belongs_to,
)
from pgworker.errors import CredentialRefused, JobError, Permanent
from pgworker.providers.postgres.sessions import Sessions
from pgworker.tenants.connection import StatementError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from pgworker.tenants.connection import TenantConnection

# Options of a URL that tell who logs in, and where to (libpq, chapter 32.1.2).
OF_OUR_LOGIN = frozenset({"user", "password", "passfile", "dbname", "service", "sslpassword"})


class PostgresServer:
    """Opens sessions on the server of a URL: as the one who makes tenants, or as a tenant."""

    def __init__(self, admin_url: str) -> None:
        """Take the URL of who makes tenants; connect nowhere yet."""
        self._admin_url = admin_url
        self._sessions = Sessions()

    @property
    def credential(self) -> str:
        """Name the login that we use, by user and server."""
        parts = urlsplit(self._admin_url)
        options = dict(parse_qsl(parts.query))
        user = parts.username or options.get("user", "")
        place = f"{user}@{self.host}:{options.get('port', '')}"
        return f"postgres:{hashlib.sha256(place.encode()).hexdigest()[:8]}"

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
        """Be the one who makes tenants; every refusal becomes a `JobError`.

        Args:
            database: to be in; by default that of the URL. No session of ours stays in another.
            fresh: log in, even if a session is there.
        """
        url = self._admin_url if database is None else self._admin_url_for(database)
        async with AsyncExitStack() as stack:
            try:
                admin = await stack.enter_async_context(
                    self._sessions.lend(url, fresh=fresh, keep=database is None)
                )
            except Permanent as error:
                # Our own login is refused, and so it is for every other job.
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
        """Be the owner of a tenant's database, in that database; `keep` as `Sessions.lend`."""
        return self._sessions.lend(self.dsn(ref, password), keep=keep)

    def expect_tenant(self, ref: str, password: str) -> None:
        """Begin to log in as the owner, who will come soon."""
        self._sessions.expect(self.dsn(ref, password))

    def dsn(self, ref: str, password: str | None) -> str:
        """Return the tenant's DSN on the server, with the server's own options.

        Nothing of our own login goes along: options of a URL may hold it as well.
        """
        parts = urlsplit(self._admin_url)
        hosts = parts.netloc.rpartition("@")[2]
        login = ref if password is None else f"{ref}:{password}"
        return urlunsplit(
            (parts.scheme, f"{login}@{hosts}", f"/{ref}", self._options_without(OF_OUR_LOGIN), "")
        )

    async def aclose(self) -> None:
        """Close the sessions that are kept."""
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
        return error.to_job_error("the tenants' server", passing=DATABASE_COMMAND_PASSING)


def literal(name: str) -> str:
    """Return a name or a verifier as a literal.

    Raises:
        Permanent: it isn't one of ours.
    """
    # Names are pgw_ and hexadecimal digits, verifiers base64: nothing needs escaping, and
    # whatever would is refused.
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
