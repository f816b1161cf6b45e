"""What one process works with: the platform's database, opened; its providers; its keys.

The database is the one of DATABASE_URL, or an embedded one.
"""

from __future__ import annotations

import base64
import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from pydantic import SecretStr

from pgworker.db.embedded import embedded_server, get_default_data_dir
from pgworker.db.migrate import migrate, read_state
from pgworker.db.pool import connected, open_pool
from pgworker.db.private_file import create_private, data_dir_errors_translated
from pgworker.providers.base import ProviderContext
from pgworker.providers.registry import Providers, check_provider_setting
from pgworker.providers.shared_rate_limits import SharedLimiter
from pgworker.queue.lease_timing import LeaseTiming
from pgworker.settings import Settings, parse_encryption_keys
from pgworker.status.commands import Commands
from pgworker.status.queries import StatusReader
from pgworker.telemetry import get_logger
from pgworker.tenants.secrets import TenantSecrets, Vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from pgworker.db.pool import Pool

KEY_FILE = "encryption.key"

log = get_logger()


@dataclass(frozen=True, slots=True)
class Platform:
    """The platform's opened database, with everything that is made from the settings.

    Attributes:
        dsn: of the platform's database.
        data_dir: of the embedded server; None when DATABASE_URL is set.
    """

    settings: Settings
    dsn: str = field(repr=False)
    pool: Pool = field(repr=False)
    providers: Providers = field(repr=False)
    data_dir: Path | None

    @property
    def commands(self) -> Commands:
        """What a person changes."""
        return Commands(self.pool)

    @property
    def status(self) -> StatusReader:
        """What a person sees."""
        return StatusReader(self.pool)

    @property
    def listen_dsn(self) -> str | None:
        """The DSN of the direct connection to LISTEN on; None when listening is off."""
        url = self.settings.listen_url
        if url == "off":
            return None
        return self.dsn if url is None else url.get_secret_value()

    def secrets(self) -> TenantSecrets:
        """Return the store of the tenants' secrets.

        Raises:
            BadConfiguration: as `vault`.
        """
        return TenantSecrets(self.pool, self.vault())

    def vault(self) -> Vault:
        """Return what encrypts and decrypts the tenants' secrets.

        Raises:
            BadConfiguration: PGWORKER_ENCRYPTION_KEYS is not set, or a key can't be used.
        """
        return Vault(self._encryption_keys())

    def session_keys(self) -> list[bytes]:
        """Return the keys of the console's cookies: the first one signs, all of them verify.

        They are derived from the encryption keys: so all processes of a platform accept each
        other's cookies, also after a restart.

        Raises:
            BadConfiguration: as `vault`.
        """
        return [_derive_session_key(key) for key in self._encryption_keys().values()]

    def _encryption_keys(self) -> dict[str, bytes]:
        keys = self.settings.encryption_keys
        if not keys and self.data_dir is not None:
            keys = (_find_or_make_key(self.data_dir),)
        return parse_encryption_keys(keys)


def locate_data_dir(settings: Settings) -> Path:
    """Return where the embedded server keeps its data, used or not."""
    return (settings.data_dir or get_default_data_dir()).absolute()


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[tuple[str, Path | None]]:
    """Yield the DSN of the platform's database, and the data directory when it is embedded.

    Raises:
        BadConfiguration, DatabaseUnreachable: as `embedded_server`.
    """
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value(), None
        return
    data_dir = locate_data_dir(settings)
    async with embedded_server(data_dir) as server:
        yield server.dsn, data_dir


@asynccontextmanager
async def open_platform(
    settings: Settings,
    *,
    migrate_first: bool = False,
    check: Callable[[Platform], Awaitable[None]] | None = None,
    pool_size: int = 8,
    statement_timeout: timedelta | None = None,
) -> AsyncIterator[Platform]:
    """Open the platform's database, and check that pgworker's schema is the one of this release.

    The embedded database is always migrated.

    Args:
        settings: of the process.
        migrate_first: migrate the database of DATABASE_URL, too.
        check: called before anything is changed there, with a platform that may lack the schema.
        pool_size: the maximum number of connections.
        statement_timeout: by default that of a worker, which is well below its lease.

    Raises:
        BadConfiguration, DatabaseUnreachable: it can't be opened.
        SchemaMismatch: its schema is older than this release (run `pgworker db migrate`), or newer.
    """
    check_provider_setting(settings.provider)
    async with AsyncExitStack() as stack:
        dsn, data_dir = await stack.enter_async_context(open_database(settings))
        pool = await stack.enter_async_context(
            open_pool(
                dsn,
                max_size=pool_size,
                through_pooler=settings.listen_url is not None,
                timeout=statement_timeout
                or LeaseTiming.from_lease(settings.lease).statement_timeout,
            )
        )
        providers = Providers(
            ProviderContext(settings, platform_dsn=dsn, limiter=SharedLimiter(pool))
        )
        stack.push_async_callback(providers.aclose)
        platform = Platform(settings, dsn, pool, providers, data_dir)
        if check is not None:
            await check(platform)
        async with connected(dsn) as connection:
            if migrate_first or data_dir is not None:
                await migrate(connection, dsn=dsn)
            else:
                (await read_state(connection)).refuse_if_not_current()
        yield platform


def _derive_session_key(key: bytes) -> bytes:
    """Return a key for cookies that reveals nothing about the encryption key (HKDF, RFC 5869)."""
    return HKDFExpand(SHA256(), length=32, info=b"pgworker session cookie").derive(key)


def _find_or_make_key(data_dir: Path) -> SecretStr:
    """Return the embedded default's own key, made at first use.

    Raises:
        BadConfiguration: the key can't be written or read.
    """
    path = data_dir / KEY_FILE
    with data_dir_errors_translated(data_dir):
        if not path.exists():
            create_private(path, generate_key("embedded"))
        return SecretStr(path.read_text(encoding="ascii").strip())


def generate_key(key_id: str) -> str:
    """Return a new encryption key, as PGWORKER_ENCRYPTION_KEYS takes it."""
    return f"{key_id}:{base64.b64encode(os.urandom(32)).decode()}"
