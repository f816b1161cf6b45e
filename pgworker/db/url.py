"""The parameters of a database URL: those that we read, and those that asyncpg doesn't know.

asyncpg takes a parameter that it doesn't know for a setting of the server, which then refuses the
connection. Listed here are libpq's parameters (PostgreSQL 18, chapter 32.1.2) and those that ORMs
add to the same URL: each is honoured, or left out and named in the log, once in a process.
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
    """A parameter of the URL has a value that isn't allowed; the message names it."""


@dataclass(frozen=True, slots=True)
class UrlOptions:
    """The parameters of a URL that neither asyncpg nor the server reads, but we do.

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


Reader: TypeAlias = Callable[[UrlOptions, str, str], UrlOptions]


def _parse_whole_number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        msg = f"{name} must be a whole number"
        raise UnusableParameter(msg) from None


def _read_connect_timeout(options: UrlOptions, name: str, value: str) -> UrlOptions:
    seconds = _parse_whole_number(name, value)
    # Zero means to libpq that it waits for ever, which a worker never does.
    return replace(options, connect_timeout=timedelta(seconds=seconds) if seconds > 0 else None)


def _read_keepalives(options: UrlOptions, name: str, value: str) -> UrlOptions:
    is_on = _parse_whole_number(name, value) != 0
    return replace(options, socket=replace(options.socket, keepalives=is_on))


def _read_socket_option(options: UrlOptions, name: str, value: str) -> UrlOptions:
    number = _parse_whole_number(name, value)
    # Zero leaves it to the system, as in libpq.
    changed: dict[str, Any] = {name.removeprefix("keepalives_"): number if number > 0 else None}
    return replace(options, socket=replace(options.socket, **changed))


def _read_load_balance_hosts(options: UrlOptions, name: str, value: str) -> UrlOptions:
    if value not in {"disable", "random"}:
        msg = f"{name} must be disable or random"
        raise UnusableParameter(msg)
    return replace(options, in_any_order=value == "random")


def _read_pgbouncer(options: UrlOptions, _: str, value: str) -> UrlOptions:
    return replace(options, is_pooled=value == "true")


HONOURED: Final[dict[str, Reader]] = {
    "connect_timeout": _read_connect_timeout,
    "keepalives": _read_keepalives,
    "keepalives_idle": _read_socket_option,
    "keepalives_interval": _read_socket_option,
    "keepalives_count": _read_socket_option,
    "tcp_user_timeout": _read_socket_option,
    "load_balance_hosts": _read_load_balance_hosts,
    "pgbouncer": _read_pgbouncer,
    # Each connection of ours has a name of its own.
    "fallback_application_name": lambda options, _, __: options,
}

# Left out, each with the values that ask for nothing. First those that security may depend on:
# asyncpg has neither channel binding nor GSSAPI encryption, and talks UTF-8 only.
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

_reported: set[tuple[str, ...]] = set()


def split_options(dsn: str) -> tuple[str, UrlOptions]:
    """Return the URL without the parameters that asyncpg doesn't know, and those that we read.

    Raises:
        UnusableParameter: one has a value that isn't allowed.
        ValueError: it isn't a URL.
    """
    parts = urlsplit(dsn)
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return dsn, UrlOptions()  # what looks like parameters may be a part of the password
    options, kept, left_out = UrlOptions(), [], []
    for pair in parts.query.split("&"):
        named = parse_qsl(pair, keep_blank_values=True)
        name, value = named[0] if len(named) == 1 else ("", "")
        if name in HONOURED:
            options = HONOURED[name](options, name, value)
        elif name in GUARDS or name in OTHERS:
            if value not in {**GUARDS, **OTHERS}[name]:
                left_out.append(name)
        else:
            kept.append(pair)
    _report_ignored(parts.netloc.rpartition("@")[2], left_out)
    query = "&".join(kept)
    return (dsn if query == parts.query else parts._replace(query=query).geturl()), options


def _report_ignored(host: str, left_out: list[str]) -> None:
    """Log the names of what is left out, never its values: some are secrets."""
    names = tuple(sorted(set(left_out)))
    if not names or (host, *names) in _reported:
        return
    _reported.add((host, *names))
    report = log.warning if any(name in GUARDS for name in names) else log.info
    report("url_parameters_ignored", host=host or "the local socket", parameters=", ".join(names))
