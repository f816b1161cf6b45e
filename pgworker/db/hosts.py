"""The hosts of a database URL: whichever of them takes writes just now is the one we talk to."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import asyncpg

from pgworker.db.connection import OwnConnection
from pgworker.db.sqlstate import LOGIN_REFUSED, NO_SUCH_DATABASE, belongs_to
from pgworker.db.translation import DATABASE_ERRORS

CONNECT_TIMEOUT = timedelta(seconds=10)
# Of several hosts one that swallows packets mustn't keep us long from the next.
CONNECT_TIMEOUT_EACH = timedelta(seconds=3)
READ_WRITE = "read-write"


class NoHostTakesWrites(ConnectionError):
    """None of the hosts would have us; the message says why, host by host."""


class Hosts:
    """The hosts of one URL. Begins with the one that answered last, ends with those that failed.

    With several hosts and no `target_session_attrs` in the URL it is read-write: a worker that
    finds a standby first couldn't do anything there. asyncpg itself has one time-out for all
    hosts, and gives up at the first that answers with an error.

    Attributes:
        current: `host:port` of the newest connection; None before the first.
    """

    def __init__(self, dsn: str) -> None:
        """Take the URL apart; never raises for what a connect will refuse."""
        self.dsn = dsn
        self.current: str | None = None
        self._order = each_host(dsn)
        self._several = len(self._order) > 1
        self._options: dict[str, Any] = {}
        if self._several and not _says_which(dsn):
            self._options["target_session_attrs"] = READ_WRITE

    async def connect(self, *, timeout: timedelta | None = None, **options: Any) -> OwnConnection:
        """Connect to the first host that will have us.

        Args:
            timeout: for each host; by default 10 s, or 3 s each when there are several.
            options: of `asyncpg.connect`.

        Raises:
            NoHostTakesWrites: there are several hosts and none would have us, or the only one
                isn't what `target_session_attrs` asks for.
            asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError: as
                `asyncpg.connect`, when there is one host, or when all refuse our login alike.
        """
        each = timeout or (CONNECT_TIMEOUT_EACH if self._several else CONNECT_TIMEOUT)
        failures: list[tuple[str, Exception]] = []
        for dsn in tuple(self._order):
            try:
                connection: OwnConnection = await asyncpg.connect(
                    dsn,
                    timeout=each.total_seconds(),
                    **{**self._options, **options, "connection_class": OwnConnection},
                )
            except DATABASE_ERRORS as error:
                if not self._several and not _is_not_what_was_asked_for(error):
                    raise
                failures.append((dsn, error))
                self._put_last(dsn)
            except BaseException:
                # Whoever waited for us has lost patience: let the next try begin elsewhere.
                self._put_last(dsn)
                raise
            else:
                self.current = _address(dsn)
                return connection
        if all(_refuses_our_login(error) for _, error in failures):
            raise failures[0][1]
        raise NoHostTakesWrites(
            "no host takes writes: "
            + "; ".join(f"{_address(dsn)} {_why(error, each)}" for dsn, error in failures)
        ) from failures[-1][1]

    def _put_last(self, dsn: str) -> None:
        self._order.remove(dsn)
        self._order.append(dsn)


def each_host(dsn: str) -> list[str]:
    """Return one URL for each host of the URL (libpq, chapter 32.1.1.3), in their order."""
    parts = urlsplit(dsn)
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return [dsn]  # what looks like a list of hosts may be a part of the password
    userinfo, at, netloc = parts.netloc.rpartition("@")
    if "," in netloc:
        return [
            parts._replace(netloc=f"{userinfo}{at}{host}").geturl() for host in netloc.split(",")
        ]
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    hosts = options.get("host", "").split(",")
    if netloc or len(hosts) == 1:
        return [dsn]
    ports = options.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        return [dsn]  # the connect refuses it in words of its own
    return [
        parts._replace(
            query=urlencode({**options, "host": host, "port": port or "5432"}, quote_via=quote)
        ).geturl()
        for host, port in zip(hosts, ports, strict=True)
    ]


def _says_which(dsn: str) -> bool:
    options = dict(parse_qsl(urlsplit(dsn).query))
    return "target_session_attrs" in options or "PGTARGETSESSIONATTRS" in os.environ


def _address(dsn: str) -> str:
    """Return host and port of a URL with one host."""
    parts = urlsplit(dsn)
    netloc = parts.netloc.rpartition("@")[2]
    if netloc:
        return netloc
    options = dict(parse_qsl(parts.query))
    return ":".join(filter(None, (options.get("host", "the local socket"), options.get("port"))))


def _is_not_what_was_asked_for(error: Exception) -> bool:
    return isinstance(error, asyncpg.TargetServerAttributeNotMatched)


def _refuses_our_login(error: Exception) -> bool:
    """Tell a wrong user, password or database from what may pass."""
    return isinstance(error, asyncpg.PostgresError) and belongs_to(
        error.sqlstate, (*LOGIN_REFUSED, *NO_SUCH_DATABASE)
    )


def _why(error: Exception, timeout: timedelta) -> str:
    if _is_not_what_was_asked_for(error):
        return "is in recovery or read-only"
    if isinstance(error, ConnectionRefusedError):
        return "refuses connections"
    if isinstance(error, TimeoutError):
        return f"does not answer within {timeout.total_seconds():g} s"
    return f"says: {str(error).partition(chr(10))[0] or type(error).__name__}"
