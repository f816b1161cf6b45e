"""What a database URL asks for beyond its hosts, and what of it asyncpg can't give.

asyncpg takes a parameter that it doesn't know for a setting of the server, which then refuses the
connection. Here stand libpq's parameters (PostgreSQL 18, chapter 32.1.2) and those that ORMs add to
the same URL: each is honoured, or left out and named in the log, once in a process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from pgworker.db.connection import SocketOptions
from pgworker.telemetry import get_logger

DEFAULTS: Final = SocketOptions()

log = get_logger()


class UnusableParameter(ValueError):
    """A parameter of the URL has a value that it can't have; the message names it."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the parameters of a URL ask of us, not of asyncpg or of the server.

    Attributes:
        connect_timeout: for each host; None when the URL leaves it to us.
        socket: how a dead peer is noticed.
        in_any_order: try the hosts in random order.
        is_pooled: a pooler in transaction mode stands in front (Prisma's `pgbouncer=true`).
    """

    connect_timeout: timedelta | None = None
    socket: SocketOptions = DEFAULTS
    in_any_order: bool = False
    is_pooled: bool = False


Reader: TypeAlias = Callable[[Wishes, str, str], Wishes]


def _whole_number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        msg = f"{name} must be a whole number"
        raise UnusableParameter(msg) from None


def _connect_timeout(wishes: Wishes, name: str, value: str) -> Wishes:
    seconds = _whole_number(name, value)
    # Zero means to libpq that it waits for ever, which a worker never does.
    return replace(wishes, connect_timeout=timedelta(seconds=seconds) if seconds > 0 else None)


def _keepalives(wishes: Wishes, name: str, value: str) -> Wishes:
    is_on = _whole_number(name, value) != 0
    return replace(wishes, socket=replace(wishes.socket, keepalives=is_on))


def _socket_option(wishes: Wishes, name: str, value: str) -> Wishes:
    number = _whole_number(name, value)
    # Zero leaves it to the system, as in libpq.
    changed: dict[str, Any] = {name.removeprefix("keepalives_"): number if number > 0 else None}
    return replace(wishes, socket=replace(wishes.socket, **changed))


def _load_balance_hosts(wishes: Wishes, name: str, value: str) -> Wishes:
    if value not in {"disable", "random"}:
        msg = f"{name} must be disable or random"
        raise UnusableParameter(msg)
    return replace(wishes, in_any_order=value == "random")


def _pgbouncer(wishes: Wishes, _: str, value: str) -> Wishes:
    return replace(wishes, is_pooled=value == "true")


HONOURED: Final[dict[str, Reader]] = {
    "connect_timeout": _connect_timeout,
    "keepalives": _keepalives,
    "keepalives_idle": _socket_option,
    "keepalives_interval": _socket_option,
    "keepalives_count": _socket_option,
    "tcp_user_timeout": _socket_option,
    "load_balance_hosts": _load_balance_hosts,
    "pgbouncer": _pgbouncer,
    # Each connection of ours has a name of its own.
    "fallback_application_name": lambda wishes, _, __: wishes,
}

# Left out, each with the values at which nothing is lost by it. First what somebody may rely on for
# security: asyncpg has neither channel binding nor GSSAPI encryption, and talks UTF-8 only.
GUARDS: Final[dict[str, frozenset[str]]] = {
    "channel_binding": frozenset({"disable", "prefer"}),
    "gssencmode": frozenset({"disable", "prefer"}),
    "require_auth": frozenset({""}),
    "requirepeer": frozenset({""}),
    "requiressl": frozenset({"0"}),
    "sslcertmode": frozenset({"allow"}),
    "sslcompression": frozenset({"0"}),
    "sslcrldir": frozenset({""}),
    "sslsni": frozenset({"1"}),
    "min_protocol_version": frozenset({"", "3.0"}),
    "sslaccept": frozenset({"accept_invalid_certs"}),
    "sslidentity": frozenset({""}),
}
OTHERS: Final[dict[str, frozenset[str]]] = {
    "client_encoding": frozenset({"auto", "UTF8", "utf8", "UTF-8", "utf-8"}),
    "gssdelegation": frozenset({"0"}),
    "hostaddr": frozenset({""}),
    "max_protocol_version": frozenset({"", "3.0", "3.2", "latest"}),
    "oauth_client_id": frozenset({""}),
    "oauth_client_secret": frozenset({""}),
    "oauth_issuer": frozenset({""}),
    "oauth_scope": frozenset({""}),
    "replication": frozenset({"", "0", "false", "no", "off"}),
    "scram_client_key": frozenset({""}),
    "scram_server_key": frozenset({""}),
    "servicefile": frozenset({""}),
    "sslkeylogfile": frozenset({""}),
    # Prisma's, Supabase's, node-postgres'.
    "connection_limit": frozenset(),
    "max_connection_lifetime": frozenset(),
    "max_idle_connection_lifetime": frozenset(),
    "pool_timeout": frozenset(),
    "schema": frozenset({"", "public"}),
    "socket_timeout": frozenset(),
    "statement_cache_size": frozenset(),
    "supa": frozenset(),
    "uselibpqcompat": frozenset(),
    "workaround": frozenset(),
}

_told: set[tuple[str, ...]] = set()


def take_wishes(dsn: str) -> tuple[str, Wishes]:
    """Return the URL without the parameters that asyncpg doesn't know, and what they ask of us.

    Raises:
        UnusableParameter: one has a value that it can't have.
        ValueError: it isn't a URL.
    """
    parts = urlsplit(dsn)
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return dsn, Wishes()  # what looks like parameters may be a part of the password
    wishes, kept, left_out = Wishes(), [], []
    for pair in parts.query.split("&"):
        named = parse_qsl(pair, keep_blank_values=True)
        name, value = named[0] if len(named) == 1 else ("", "")
        if name in HONOURED:
            wishes = HONOURED[name](wishes, name, value)
        elif name in GUARDS or name in OTHERS:
            if value not in {**GUARDS, **OTHERS}[name]:
                left_out.append(name)
        else:
            kept.append(pair)
    _tell(parts.netloc.rpartition("@")[2], left_out)
    query = "&".join(kept)
    return (dsn if query == parts.query else parts._replace(query=query).geturl()), wishes


def _tell(host: str, left_out: list[str]) -> None:
    """Name what is left out, never its values: some are secrets."""
    names = tuple(sorted(set(left_out)))
    if not names or (host, *names) in _told:
        return
    _told.add((host, *names))
    tell = log.warning if any(name in GUARDS for name in names) else log.info
    tell("url_parameters_ignored", host=host or "the local socket", parameters=", ".join(names))
