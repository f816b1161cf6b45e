"""Encrypts and decrypts the secrets of tenants, and keeps them in `pgworker.tenant_secrets`.

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce for each value. Client and field are
associated data: a row that is copied to another client or field doesn't decrypt.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pgworker.db.queries import load
from pgworker.errors import BadConfiguration

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from pgworker.db.pool import Connection, Pool
    from pgworker.models import Job

NONCE_BYTES = 12
DATABASE_PASSWORD = "db_password"  # noqa: S105  # the name of a field


class SecretQueries(NamedTuple):
    """The statements of `sql/queries/secrets.sql`."""

    put: str
    get_fields: str
    lock_outdated: str
    count_by_key: str
    audit: str


SECRET_QUERIES = load(SecretQueries, "queries/secrets.sql")


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted value, as it is stored."""

    key_id: str
    nonce: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)


class Vault:
    """Seals and opens values. Pure: it reads and writes nothing."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Take the keys, 32 bytes each by id; the first one seals, all of them open.

        Raises:
            BadConfiguration: there is none.
        """
        if not keys:
            raise BadConfiguration(
                "PGWORKER_ENCRYPTION_KEYS is not set: tenants' keys are only ever stored "
                "encrypted (pgworker keys generate makes one)"
            )
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.key_id = next(iter(keys))

    def seal(self, client_id: UUID, name: str, value: str) -> Sealed:
        """Encrypt the field `name` of a client."""
        nonce = os.urandom(NONCE_BYTES)
        cipher = self._ciphers[self.key_id]
        return Sealed(
            self.key_id,
            nonce,
            cipher.encrypt(nonce, value.encode(), _associated_data(client_id, name)),
        )

    def open(self, client_id: UUID, name: str, sealed: Sealed) -> str:
        """Decrypt the field `name` of a client.

        Raises:
            BadConfiguration: its key is missing, or isn't the one that sealed it.
        """
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            raise BadConfiguration(
                f"PGWORKER_ENCRYPTION_KEYS: the key {sealed.key_id} is missing; "
                f"it encrypts {name} of client {client_id}"
            )
        try:
            plain = cipher.decrypt(
                sealed.nonce, sealed.ciphertext, _associated_data(client_id, name)
            )
        except (InvalidTag, ValueError):
            # ValueError: a nonce of a length that GCM doesn't take.
            raise BadConfiguration(
                f"PGWORKER_ENCRYPTION_KEYS: the key {sealed.key_id} does not decrypt {name} of "
                f"client {client_id}: another key goes by that id, or the row was tampered with"
            ) from None
        return plain.decode()


class TenantSecrets:
    """The secrets of tenants, by field: `db_password`, `dsn`, `anon_key` and so on."""

    def __init__(self, pool: Pool, vault: Vault) -> None:
        self._pool = pool
        self._vault = vault

    def seal(self, client_id: UUID, name: str, value: str) -> Sealed:
        """Encrypt a field, for a statement that stores it together with other values."""
        return self._vault.seal(client_id, name, value)

    def open(self, client_id: UUID, name: str, sealed: Sealed) -> str:
        """Decrypt a field that was read together with other values.

        Raises:
            BadConfiguration: as `Vault.open`.
        """
        return self._vault.open(client_id, name, sealed)

    async def put(
        self,
        client_id: UUID,
        fields: Mapping[str, str],
        *,
        job: Job | None = None,
        connection: Connection | None = None,
    ) -> None:
        """Store fields; a repeat overwrites.

        Args:
            client_id: the owner of the fields.
            fields: in clear.
            job: held by the caller; None for an action of a person.
            connection: of the caller's transaction, if there is one.

        Raises:
            LeaseLost: another worker holds the job now.
        """
        sealed = {name: self._vault.seal(client_id, name, text) for name, text in fields.items()}
        await (connection or self._pool).execute(
            SECRET_QUERIES.put,
            job and job.id,
            job and job.claim_token,
            client_id,
            list(sealed),
            [each.key_id for each in sealed.values()],
            [each.nonce for each in sealed.values()],
            [each.ciphertext for each in sealed.values()],
        )

    async def get_fields(self, client_id: UUID) -> dict[str, str]:
        """Return all fields of a client, in clear."""
        rows = await self._pool.fetch(SECRET_QUERIES.get_fields, client_id)
        return {
            row["field"]: self._vault.open(
                client_id, row["field"], Sealed(row["key_id"], row["nonce"], row["ciphertext"])
            )
            for row in rows
        }

    async def rotate(self) -> int:
        """Encrypt with the first key all values that another key encrypts; return their number.

        Safe to repeat and to interrupt; runs in transactions of up to 500 values. Waits for
        values that are being written, so that none stays under an older key.
        """
        count = 0
        while True:
            async with self._pool.acquire() as connection, connection.transaction():
                rows = await connection.fetch(SECRET_QUERIES.lock_outdated, self._vault.key_id)
                for row in rows:
                    client_id, name = row["client_id"], row["field"]
                    sealed = Sealed(row["key_id"], row["nonce"], row["ciphertext"])
                    value = self._vault.open(client_id, name, sealed)
                    await self.put(client_id, {name: value}, connection=connection)
                if rows:
                    await connection.execute(
                        SECRET_QUERIES.audit,
                        "keys_rotated",
                        None,
                        {"secrets": len(rows), "key_id": self._vault.key_id},
                    )
            if not rows:
                return count
            count += len(rows)

    async def count_by_key(self) -> dict[str, int]:
        """Return the number of values that each key encrypts."""
        rows = await self._pool.fetch(SECRET_QUERIES.count_by_key)
        return {row["key_id"]: row["secrets"] for row in rows}

    async def reveal(self, client_id: UUID) -> dict[str, str]:
        """Return all fields in clear, for a person; recorded in the audit trail first."""
        await self._pool.execute(SECRET_QUERIES.audit, "secrets_shown", client_id, {})
        return await self.get_fields(client_id)


def _associated_data(client_id: UUID, name: str) -> bytes:
    return f"{client_id}/{name}".encode()
