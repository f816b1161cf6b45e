"""The ledger of intents: what we are about to create outside, committed before we do it.

Each method writes with one statement, which checks the fencing token first: a worker that lost its
job writes nothing here and gets `LeaseLost`.
"""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from pgworker.db.queries import load
from pgworker.tenants.secrets import DATABASE_PASSWORD, Sealed, TenantSecrets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from pgworker.db.pool import Pool
    from pgworker.models import Job
    from pgworker.providers.base import Tenant

PASSWORD_LENGTH = 40


class LedgerQueries(NamedTuple):
    """The statements of `sql/queries/ledger.sql`."""

    commit_intent: str
    find_intent: str
    record_ref: str


LEDGER_QUERIES = load(LedgerQueries, "queries/ledger.sql")


@dataclass(frozen=True, slots=True)
class Intent:
    """The tenant that we are about to create for a client, or have created.

    Attributes:
        ref: of the tenant; None until it is known.
        creates: requests sent since a person last retried, without those that were refused.
        since_create: how long ago the newest of all requests was sent; None when none was.
        password_went_with_create: there was a request, and each carried the password. Otherwise
            the tenant may have another: it wasn't created by us, or our password was replaced.
        password_was_set: the tenant was given the password afterwards.
        password: of the tenant's database, generated with the intent; None if it was deleted.
    """

    provider: str
    name: str
    ref: str | None
    creates: int
    since_create: timedelta | None
    password_went_with_create: bool
    password_was_set: bool
    region: str | None = None
    plan: str | None = None
    password: str | None = field(default=None, repr=False)


class Ledger:
    """Intents, the refs that came of them, and the tenants' secrets."""

    def __init__(self, pool: Pool, tenant_secrets: TenantSecrets) -> None:
        self._pool = pool
        self._secrets = tenant_secrets

    async def commit(
        self, job: Job, *, provider: str, name: str, region: str | None, plan: str | None
    ) -> Intent:
        """Commit the intent and a new database password, or return the intent that is there.

        The first one stands: a create may have carried it already, so the client's later wishes
        change nothing.

        Raises:
            LeaseLost: another worker holds the job now.
        """
        # Before it is known whether they are needed: intent and password are committed with one
        # statement, and a read before it would cost every new client a round trip.
        password = generate_password()
        sealed = self._secrets.seal(job.client_id, DATABASE_PASSWORD, password)
        are_new = await self._pool.fetchval(
            LEDGER_QUERIES.commit_intent,
            job.id,
            job.claim_token,
            job.client_id,
            provider,
            name,
            {"region": region, "plan": plan},
            DATABASE_PASSWORD,
            sealed.key_id,
            sealed.nonce,
            sealed.ciphertext,
        )
        if are_new:
            # Nearly always, and then everything is known without reading it back.
            return Intent(
                provider=provider,
                name=name,
                ref=None,
                creates=0,
                since_create=None,
                password_went_with_create=False,
                password_was_set=False,
                region=region,
                plan=plan,
                password=password,
            )
        intent = await self.find_intent(job.client_id)
        assert intent is not None
        return intent

    async def record_ref(
        self,
        job: Job,
        tenant: Tenant,
        *,
        provisioning: dict[str, Any],
        done: Sequence[int] = (),
    ) -> None:
        """Commit the ref at once, on the intent and on the client.

        Args:
            job: held by the caller.
            tenant: the one that was found or created.
            provisioning: its real properties, for `additional_settings`. Stored with the ref: if
                the worker dies right after, the next one finds the ref and asks no more.
            done: the steps that created it (`Steps.drain_completed`).

        Raises:
            LeaseLost: another worker holds the job now.
        """
        await self._pool.execute(
            LEDGER_QUERIES.record_ref,
            job.id,
            job.claim_token,
            job.client_id,
            tenant.ref,
            tenant.url,
            provisioning,
            list(done),
        )

    async def replace_password(self, job: Job) -> str:
        """Store a new database password in the place of one that was deleted."""
        password = generate_password()
        await self._secrets.put(job.client_id, {DATABASE_PASSWORD: password}, job=job)
        return password

    async def store_secrets(self, job: Job, fields: Mapping[str, str]) -> None:
        """Encrypt and store the tenant's credentials."""
        await self._secrets.put(job.client_id, fields, job=job)

    async def find_intent(self, client_id: UUID) -> Intent | None:
        """Return the client's intent; None when none was committed yet."""
        row = await self._pool.fetchrow(LEDGER_QUERIES.find_intent, client_id, DATABASE_PASSWORD)
        if row is None:
            return None
        seconds = row["seconds_since_create"]
        sealed = Sealed(row["key_id"], row["nonce"], row["ciphertext"])
        return Intent(
            provider=row["provider"],
            name=row["name"],
            ref=row["ref"],
            creates=row["creates"],
            # Counted by the database: the create may have been another machine's, whose clock
            # differs.
            since_create=None if seconds is None else timedelta(seconds=seconds),
            password_went_with_create=row["password_went_with_create"],
            password_was_set=row["password_was_set"],
            region=row["request"].get("region"),
            plan=row["request"].get("plan"),
            password=(
                None
                if row["key_id"] is None
                else self._secrets.open(client_id, DATABASE_PASSWORD, sealed)
            ),
        )


def generate_password() -> str:
    """Return 40 random letters and digits (238 bits); they need no escaping in a URL."""
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(PASSWORD_LENGTH))
