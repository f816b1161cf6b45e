"""Which keys of a Supabase project to use, and the DSN of its database. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from pgworker.errors import Permanent, Transient

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pgworker.providers.supabase.models import ApiKey, PoolerConfig

# Names of the keys that we create; the contract's pattern is `^[a-z_][a-z0-9_]+$`, 4 to 64.
CREATED_NAMES: Final = {"publishable": "pgworker_publishable", "secret": "pgworker_secret"}

_NEW_STYLE = {
    "publishable": re.compile(r"sb_publishable_[A-Za-z0-9_-]+"),
    "secret": re.compile(r"sb_secret_[A-Za-z0-9_-]+"),
}
_LEGACY = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class ChosenKeys:
    """The usable keys of a project by the field names of `tenant_secrets`."""

    fields: dict[str, str] = field(repr=False)

    @property
    def missing(self) -> tuple[str, ...]:
        """The types of new keys that must be created for a low and an elevated key."""
        lacks_low = not self.fields.keys() & {"publishable_key", "anon_key"}
        lacks_elevated = not self.fields.keys() & {"secret_key", "service_role_key"}
        lacking = {"publishable": lacks_low, "secret": lacks_elevated}
        return tuple(kind for kind, lacks in lacking.items() if lacks)

    @property
    def depends_on_legacy(self) -> bool:
        """Whether the low or the elevated key is a legacy one, because there is no new one."""
        return any(
            old in self.fields and new not in self.fields
            for old, new in (("anon_key", "publishable_key"), ("service_role_key", "secret_key"))
        )


def choose_keys(keys: Iterable[ApiKey]) -> ChosenKeys:
    """Choose the keys by their type: both of the new kinds may be called `default`.

    A secret key counts only when its template makes it equal to `service_role`. Masked or
    malformed values count as absent.
    """
    fields: dict[str, str] = {}
    for key in keys:
        name = _read_field(key)
        if name is not None and key.api_key is not None:
            fields.setdefault(name, key.api_key)
    return ChosenKeys(fields)


def is_legacy(key: str) -> bool:
    """Return whether the key is a JWT: the gateway wants it as a bearer token as well."""
    return _LEGACY.fullmatch(key) is not None


def _read_field(key: ApiKey) -> str | None:
    """Return the field of `Credentials` for a key, or None when the key can't be used."""
    value = key.api_key or ""
    if key.type in _NEW_STYLE:
        # Without the permission to reveal it, the value is a prefix and dots: no match.
        if _NEW_STYLE[key.type].fullmatch(value) is None:
            return None
        role = (key.secret_jwt_template or {}).get("role")
        if key.type == "secret" and role != "service_role":
            return None
        return f"{key.type}_key"
    if key.type in {None, "legacy"} and key.name in {"anon", "service_role"} and is_legacy(value):
        return f"{key.name}_key"
    return None


def build_dsn(
    poolers: Sequence[PoolerConfig],
    *,
    ref: str,
    password: str,
    port: int,
    allowed_hosts: Sequence[str],
) -> str:
    """Return the DSN of the project's database through its pooler, in session mode.

    The API's answer decides where a password will be sent, so only hosts of `allowed_hosts` are
    accepted: exact names or addresses, and suffixes that start with a dot.

    Raises:
        Transient: the pooler doesn't know the project's primary database yet.
        Permanent: the answer names a host or a user that isn't allowed.
    """
    primary = next((item for item in poolers if item.database_type == "PRIMARY"), None)
    if primary is None:
        raise Transient(f"the pooler has no entry for the primary database of project {ref} yet")
    host = primary.db_host.lower()
    if not is_allowed_host(host, allowed_hosts):
        raise Permanent(
            f"the pooler host {primary.db_host[:100]!r} of project {ref} is not allowed: "
            "if it is right, add it to PGWORKER_SUPABASE_POOLER_HOSTS"
        )
    if not primary.db_user.endswith(f".{ref}"):
        raise Permanent(
            f"the pooler user {primary.db_user[:100]!r} is not one of project {ref}: "
            "its password would go to another tenant"
        )
    login = f"{quote(primary.db_user, safe='')}:{quote(password, safe='')}"
    literal = f"[{host}]" if ":" in host else host
    # A loopback server, such as the simulator, seldom has a certificate, and needs none.
    options = "" if _is_loopback(host) else "?sslmode=require"
    return f"postgresql://{login}@{literal}:{port}/{quote(primary.db_name, safe='')}{options}"


def is_allowed_host(host: str, allowed: Sequence[str]) -> bool:
    """Return whether a plain host or address is an allowed one."""
    if _HOST.fullmatch(host) is None and _parse_address(host) is None:
        return False
    entries = (entry.lower().strip() for entry in allowed)
    return any(
        host.endswith(entry) and host != entry if entry.startswith(".") else host == entry
        for entry in entries
        if entry
    )


def _is_loopback(host: str) -> bool:
    address = _parse_address(host)
    return host == "localhost" if address is None else address.is_loopback


def _parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
