"""The settings of a process: one class, read once at the start, handed down as values."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pgworker.errors import BadConfiguration
from pgworker.models import ApiToken, Scope

# A token that a person makes up is short and can be guessed; those of `pgworker keys token` have
# 256 random bits.
MIN_TOKEN_LENGTH = 16
MAX_PORT = 65535
# Of names of keys and tokens.
NAME_PATTERN = re.compile(r"[\w.-]{1,64}")


def _seconds(value: object) -> object:
    """Read a number of seconds, decimals allowed, as a duration."""
    try:
        duration = value if isinstance(value, timedelta) else timedelta(seconds=float(str(value)))
    except (ValueError, OverflowError):
        msg = "must be a number of seconds, such as 30 or 0.5"
        raise ValueError(msg) from None
    if duration <= timedelta(0):
        msg = "must be above 0 seconds"
        raise ValueError(msg)
    return duration


def _postgres_url(value: object) -> object:
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    if not re.match(r"^postgres(ql)?://", text):
        msg = "must be a URL like postgresql://user:password@host:5432/database"
        raise ValueError(msg)
    try:
        urlsplit(text)
    except ValueError:
        # Its own words may hold a part of the password.
        msg = (
            "is not a usable URL: brackets belong around an IPv6 address only "
            "(in the password write %5B for [ and %5D for ])"
        )
        raise ValueError(msg) from None
    return value


def _off_or_postgres_url(value: object) -> object:
    """Accept either: a union of two types would report one mistake twice."""
    return value if value == "off" else _postgres_url(value)


def _http_url(value: object) -> object:
    text = str(value).rstrip("/")
    if not re.match(r"^https?://[^/\s]+", text):
        msg = "must be an http:// or https:// URL"
        raise ValueError(msg)
    return text


def _like(pattern: str, shape: str) -> AfterValidator:
    """Return a check of a text; its message says in words what the text must be."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            msg = f"must be {shape}"
            raise ValueError(msg)
        return text

    return AfterValidator(check)


def _address(address: str) -> str:
    if int(address.rpartition(":")[2]) > MAX_PORT:
        msg = f"must have a port up to {MAX_PORT}"
        raise ValueError(msg)
    return address


def _comma_separated(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _api_tokens(value: object) -> object:
    """Parse the tokens; only their hashes are kept in memory."""
    return parse_api_tokens(value) if isinstance(value, str) else value


Seconds = Annotated[timedelta, BeforeValidator(_seconds)]
Address = Annotated[
    str,
    _like(r"\[?[\w.:-]+\]?:\d{1,5}", "HOST:PORT, such as 127.0.0.1:8080"),
    AfterValidator(_address),
]
Reference = Annotated[
    str, _like(r"[\w.]+:[\w.]+", "MODULE:ATTRIBUTE, such as app.workflows:ONBOARDING")
]
# Whether a provider of that name is installed: `check_provider_setting`.
ProviderName = Annotated[str, _like(r"[a-z][a-z0-9_-]*", "a provider's name, such as postgres")]
Slug = Annotated[str, _like(r"[\w-]+", "the organisation's slug: letters, digits, - and _")]
ListenUrl = Annotated[Literal["off"] | SecretStr, BeforeValidator(_off_or_postgres_url)]
PostgresUrl = Annotated[SecretStr, BeforeValidator(_postgres_url)]
HttpUrl = Annotated[str, BeforeValidator(_http_url)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated)]


class Settings(BaseSettings):
    """All settings; the alias of each is its environment variable (docs/settings.md).

    An empty variable counts as not set.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    database_url: PostgresUrl | None = Field(None, alias="DATABASE_URL")
    listen_url: ListenUrl | None = Field(None, alias="PGWORKER_LISTEN_URL")
    data_dir: Path | None = Field(None, alias="PGWORKER_DATA_DIR")

    provider_name: ProviderName | None = Field(None, alias="PGWORKER_PROVIDER")
    tenants_url: PostgresUrl | None = Field(None, alias="PGWORKER_TENANTS_URL")
    migrations_dir: Path = Field(Path("supabase/migrations"), alias="PGWORKER_MIGRATIONS_DIR")
    workflow: Reference | None = Field(None, alias="PGWORKER_WORKFLOW")

    concurrency: int = Field(20, alias="PGWORKER_CONCURRENCY", ge=1, le=10_000)
    # A shorter lease rescues the jobs of a dead worker sooner; a longer one survives a longer
    # outage of the database without stopping phases.
    lease: Seconds = Field(timedelta(seconds=30), alias="PGWORKER_LEASE_SECONDS")
    # Only for a lost notification: one that arrives wakes a worker at once.
    poll: Seconds = Field(timedelta(seconds=30), alias="PGWORKER_POLL_SECONDS")
    project_poll: Seconds = Field(timedelta(seconds=5), alias="PGWORKER_PROJECT_POLL_SECONDS")
    project_timeout: Seconds = Field(
        timedelta(seconds=1200), alias="PGWORKER_PROJECT_TIMEOUT_SECONDS"
    )
    phase_timeout: Seconds = Field(timedelta(seconds=900), alias="PGWORKER_PHASE_TIMEOUT_SECONDS")
    # Far longer than listings are expected to lag: too short a time may pay for a second project.
    create_lookup: Seconds = Field(timedelta(seconds=120), alias="PGWORKER_CREATE_LOOKUP_SECONDS")
    backoff: Seconds = Field(timedelta(seconds=2), alias="PGWORKER_BACKOFF_SECONDS")
    backoff_cap: Seconds = Field(timedelta(seconds=300), alias="PGWORKER_BACKOFF_CAP_SECONDS")

    encryption_keys: Annotated[
        tuple[SecretStr, ...], NoDecode, BeforeValidator(_comma_separated)
    ] = Field((), alias="PGWORKER_ENCRYPTION_KEYS")
    http: Address | None = Field(None, alias="PGWORKER_HTTP")
    api_tokens: Annotated[tuple[ApiToken, ...], NoDecode, BeforeValidator(_api_tokens)] = Field(
        (), alias="PGWORKER_API_TOKENS"
    )
    log_format: Literal["json", "console"] | None = Field(None, alias="PGWORKER_LOG_FORMAT")

    supabase_access_token: SecretStr | None = Field(None, alias="SUPABASE_ACCESS_TOKEN")
    supabase_org_id: Slug | None = Field(None, alias="SUPABASE_ORG_ID")
    supabase_default_region: str = Field("us-east-1", alias="SUPABASE_DEFAULT_REGION")
    supabase_default_plan: str | None = Field(None, alias="SUPABASE_DEFAULT_PLAN")
    supabase_api_url: HttpUrl = Field("https://api.supabase.com", alias="SUPABASE_API_URL")
    supabase_project_url: str = Field(
        "https://{ref}.supabase.co", alias="PGWORKER_SUPABASE_PROJECT_URL"
    )
    supabase_sql: Literal["api", "postgres"] = Field("api", alias="PGWORKER_SUPABASE_SQL")
    # The Management API names the pooler's host, and the project's password is sent there: an
    # answer that was tampered with must not choose the host.
    supabase_pooler_hosts: Names = Field(
        (".supabase.com", ".supabase.co"), alias="PGWORKER_SUPABASE_POOLER_HOSTS"
    )
    supabase_pooler_port: int = Field(5432, alias="PGWORKER_SUPABASE_POOLER_PORT", ge=1, le=65535)

    @field_validator("encryption_keys")
    @classmethod
    def _keys_are_usable(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        parse_encryption_keys(keys)
        return keys

    @field_validator("supabase_project_url")
    @classmethod
    def _template_names_the_ref(cls, template: str) -> str:
        if "{ref}" not in template:
            msg = "must hold {ref}, as in https://{ref}.supabase.co"
            raise ValueError(msg)
        return template.rstrip("/")

    @model_validator(mode="after")
    def _durations_fit(self) -> Settings:
        if self.backoff_cap < self.backoff:
            msg = "PGWORKER_BACKOFF_CAP_SECONDS must not be below PGWORKER_BACKOFF_SECONDS"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _http_is_protected(self) -> Settings:
        # Without tokens every caller is an administrator: then only this machine may call.
        if self.http_address is not None and not self.api_tokens:
            host, port = self.http_address
            if not is_loopback(host):
                msg = (
                    f"PGWORKER_HTTP {self.http} is open to other machines, and PGWORKER_API_TOKENS "
                    "is not set: set it (pgworker keys token makes one), or listen on "
                    f"127.0.0.1:{port}"
                )
                raise ValueError(msg)
        return self

    @property
    def http_address(self) -> tuple[str, int] | None:
        """Host, without brackets, and port of PGWORKER_HTTP; None when HTTP is off."""
        if self.http is None:
            return None
        host, _, port = self.http.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def provider(self) -> str:
        """The provider for clients that ask for none."""
        if self.provider_name is not None:
            return self.provider_name
        return "supabase" if self.supabase_access_token is not None else "postgres"


def is_loopback(host: str) -> bool:
    """Return whether a host name or address can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def parse_encryption_keys(keys: tuple[SecretStr, ...]) -> dict[str, bytes]:
    """Return the 32 bytes of each key by its id; the key that encrypts comes first.

    Raises:
        ValueError: a key is not `id:base64-of-32-bytes`; the message never contains the key.
    """
    parsed: dict[str, bytes] = {}
    for number, key in enumerate(keys, start=1):
        key_id, _, encoded = key.get_secret_value().partition(":")
        advice = f"key {number} must be id:base64-of-32-bytes (pgworker keys generate makes one)"
        if not NAME_PATTERN.fullmatch(key_id) or not encoded:
            raise ValueError(advice)
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(advice) from None
        if len(raw) != 32:
            msg = f"{advice}; it has {len(raw)} bytes"
            raise ValueError(msg)
        if key_id in parsed:
            msg = f"the key id {key_id} is given twice"
            raise ValueError(msg)
        parsed[key_id] = raw
    return parsed


def parse_api_tokens(setting: str) -> tuple[ApiToken, ...]:
    """Return the tokens of a comma-separated list of `scope:token` or `name:scope:token`.

    The last part is the token, or `sha256=` and its hash in 64 hexadecimal digits.

    Raises:
        ValueError: a token is malformed, short or given twice; the message never contains it.
    """
    parsed: list[ApiToken] = []
    parts = [part.strip() for part in setting.split(",") if part.strip()]
    for number, part in enumerate(parts, start=1):
        *names, scope, token = part.split(":") if ":" in part else ("", part)
        if (
            scope not in set(Scope)
            or len(names) > 1
            or not NAME_PATTERN.fullmatch((names or [scope])[0])
        ):
            msg = (
                f"token {number} must be SCOPE:TOKEN or NAME:SCOPE:TOKEN with a scope of "
                f"{', '.join(Scope)} (pgworker keys token makes one)"
            )
            raise ValueError(msg)
        digest = _read_digest(token)
        if digest is None:
            msg = (
                f"token {number} must have {MIN_TOKEN_LENGTH} characters or more, or be sha256= "
                "and 64 hexadecimal digits (pgworker keys token makes one)"
            )
            raise ValueError(msg)
        if any(each.digest == digest for each in parsed):
            msg = f"token {number} is given twice"
            raise ValueError(msg)
        parsed.append(ApiToken((names or [scope])[0], Scope(scope), digest))
    return tuple(parsed)


def token_digest(token: str) -> bytes:
    """Return what is kept of a token: its SHA-256.

    A slow hash, as for passwords, would gain nothing: tokens are random and too long to be guessed.
    """
    return hashlib.sha256(token.encode()).digest()


def _read_digest(token: str) -> bytes | None:
    if token.startswith("sha256="):
        try:
            digest = bytes.fromhex(token.removeprefix("sha256="))
        except ValueError:
            return None
        return digest if len(digest) == hashlib.sha256().digest_size else None
    return token_digest(token) if len(token) >= MIN_TOKEN_LENGTH else None


def load_settings(**overrides: object) -> Settings:
    """Read the settings from the environment and `.env`; `overrides`, by variable, take precedence.

    Raises:
        BadConfiguration: one line for each mistake, without the value.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # validated by pydantic
    except ValidationError as error:
        lines = []
        for mistake in error.errors(include_input=False, include_url=False):
            name = str(mistake["loc"][0]) if mistake["loc"] else "settings"
            lines.append(f"{name}: {mistake['msg'].removeprefix('Value error, ')}")
        raise BadConfiguration("\n".join(dict.fromkeys(lines))) from None
