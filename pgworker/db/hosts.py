"""The hosts of a database URL: connects to the one that takes writes now."""

from __future__ import annotations

import os
import random
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import asyncpg

from pgworker.db.connection import OwnConnection
from pgworker.db.sqlstate import LOGIN_REFUSED, NO_SUCH_DATABASE, belongs_to
from pgworker.db.translation import DATABASE_ERRORS
from pgworker.db.url import UrlOptions, split_options

CONNECT_TIMEOUT = timedelta(seconds=10)
# One of several hosts that drops our packets must not keep us long from the next.
CONNECT_TIMEOUT_EACH = timedelta(seconds=3)
READ_WRITE = "read-write"


class NoHostTakesWrites(ConnectionError):
    """No host accepts a connection that can write; the message says why, host by host."""


class Hosts:
    """The hosts of one URL, tried in the order in which they last worked.

    With several hosts `target_session_attrs` is read-write unless the URL says otherwise, because
    a worker can't do anything on a standby. We try the hosts ourselves: asyncpg has one time-out
    for all of them, and gives up at the first that answers with an error.

    Attributes:
        current: `host:port` of the newest connection; None before the first.
        url_options: the parameters of the URL that asyncpg doesn't read.
    """

    def __init__(self, dsn: str) -> None:
        """Split the URL; a mistake in it is raised by `connect`."""
        self.dsn = dsn
        self.current: str | None = None
        self.url_options = UrlOptions()
        self._mistake: ValueError | None = None
        self._order = [dsn]
        try:
            usable, self.url_options = split_options(dsn)
            self._order = split_hosts(usable)
        except ValueError as error:
            self._mistake = error
        if self.url_options.in_any_order:
            random.shuffle(self._order)
        self._several = len(self._order) > 1
        self._options: dict[str, Any] = {}
        if self._several and not _names_session_attrs(dsn):
            self._options["target_session_attrs"] = READ_WRITE

    async def connect(self, *, timeout: timedelta | None = None, **options: Any) -> OwnConnection:
        """Connect to the first host that accepts us.

        Args:
            timeout: for each host; by default that of the URL, or 10 s, or 3 s each when there are
                several.
            options: of `asyncpg.connect`.

        Raises:
            NoHostTakesWrites: there are several hosts and none accepts us, or the only one isn't
                what `target_session_attrs` asks for.
            UnusableParameter: the URL asks for something that can't be.
            asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError: as
                `asyncpg.connect`, when there is one host, or when all refuse our login alike.
        """
        if self._mistake is not None:
            raise self._mistake
        each = timeout or self._get_timeout()
        failures: list[tuple[str, Exception]] = []
        for dsn in tuple(self._order):
            try:
                return await self._connect_to(dsn, each, options)
            except DATABASE_ERRORS as error:
                if not self._several and not _has_other_session_attrs(error):
                    raise
                failures.append((dsn, error))
        if all(_refuses_our_login(error) for _, error in failures):
            # A wrong password isn't an outage, however many hosts refuse it.
            raise failures[0][1]
        reasons = "; ".join(
            f"{_format_address(dsn)} {_describe(error, each)}" for dsn, error in failures
        )
        raise NoHostTakesWrites(f"no host takes writes: {reasons}") from failures[-1][1]

    def _get_timeout(self) -> timedelta:
        default = CONNECT_TIMEOUT_EACH if self._several else CONNECT_TIMEOUT
        return self.url_options.connect_timeout or default

    async def _connect_to(
        self, dsn: str, timeout: timedelta, options: dict[str, Any]
    ) -> OwnConnection:
        try:
            connection: OwnConnection = await asyncpg.connect(
                dsn,
                timeout=timeout.total_seconds(),
                **{**self._options, **options, "connection_class": OwnConnection},
            )
        except BaseException:
            # Also when the caller was cancelled, by a time-out of its own for example: its next
            # try should begin with another host.
            self._order.remove(dsn)
            self._order.append(dsn)
            raise
        connection.set_socket_options(self.url_options.socket)
        self.current = _format_address(dsn)
        return connection


def split_hosts(dsn: str) -> list[str]:
    """Return one URL for each host of the URL (libpq, chapter 32.1.1.3), in their order.

    Raises:
        ValueError: it isn't a URL.
    """
    parts = urlsplit(dsn)
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return [dsn]  # what looks like a list of hosts may be a part of the password
    userinfo, at, netloc = parts.netloc.rpartition("@")
    if "," in netloc:
        return [
            parts._replace(netloc=f"{userinfo}{at}{host}").geturl() for host in netloc.split(",")
        ]
    return [dsn] if netloc else _split_host_options(dsn)


def _split_host_options(dsn: str) -> list[str]:
    """Split a URL that names its hosts behind the question mark: `?host=a,b&port=1,2`."""
    parts = urlsplit(dsn)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    hosts = options.get("host", "").split(",")
    ports = options.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(hosts) == 1 or len(ports) != len(hosts):
        return [dsn]  # when the numbers differ, asyncpg refuses it with a message of its own
    return [
        parts._replace(
            query=urlencode({**options, "host": host, "port": port or "5432"}, quote_via=quote)
        ).geturl()
        for host, port in zip(hosts, ports, strict=True)
    ]


def _names_session_attrs(dsn: str) -> bool:
    options = dict(parse_qsl(urlsplit(dsn).query))
    return "target_session_attrs" in options or "PGTARGETSESSIONATTRS" in os.environ


def _format_address(dsn: str) -> str:
    """Return host and port of a URL with one host."""
    parts = urlsplit(dsn)
    netloc = parts.netloc.rpartition("@")[2]
    if netloc:
        return netloc
    options = dict(parse_qsl(parts.query))
    return ":".join(filter(None, (options.get("host", "the local socket"), options.get("port"))))


def _has_other_session_attrs(error: Exception) -> bool:
    return isinstance(error, asyncpg.TargetServerAttributeNotMatched)


def _refuses_our_login(error: Exception) -> bool:
    """Return whether user, password or database is wrong: waiting doesn't help."""
    return isinstance(error, asyncpg.PostgresError) and belongs_to(
        error.sqlstate, (*LOGIN_REFUSED, *NO_SUCH_DATABASE)
    )


def _describe(error: Exception, timeout: timedelta) -> str:
    if _has_other_session_attrs(error):
        return "is in recovery or read-only"
    if isinstance(error, ConnectionRefusedError):
        return "refuses connections"
    if isinstance(error, TimeoutError):
        return f"does not answer within {timeout.total_seconds():g} s"
    return f"says: {str(error).partition(chr(10))[0] or type(error).__name__}"
