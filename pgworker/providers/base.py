"""What a provider of tenants must be able to do. Nothing here knows a job or the queue."""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from pgworker.tenants.connection import TenantConnection
    from pgworker.tenants.steps import Steps


class TenantState(StrEnum):
    """What a provider says of a tenant."""

    COMING_UP = "coming_up"  # wait and look again
    READY = "ready"  # every service that we use answers
    GONE = "gone"  # it was there and isn't any more: a person must look
    BROKEN = "broken"  # it will not come up by itself: a person must look


@dataclass(frozen=True, slots=True)
class TenantRequest:
    """What to create. The name is deterministic: finding it proves that it is ours.

    Attributes:
        region: what the client asked for, or None for the default.
        plan: likewise.
        database_password: committed (encrypted) before the first create.
        must_leave_before: on `time.monotonic`; a request that isn't idempotent must not leave
            later, because the caller's lease would not outlast it.
    """

    client_id: UUID
    name: str
    database_password: str = field(repr=False)
    region: str | None = None
    plan: str | None = None
    must_leave_before: float = math.inf


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant that exists: a project, or a database."""

    ref: str
    url: str
    name: str
    region: str | None = None
    plan: str | None = None
    organization: str | None = None
    created_at: datetime | None = None


class RemoteState(StrEnum):
    """How much of a tenant the provider has."""

    COMPLETE = "complete"
    UNFINISHED = "unfinished"  # its last steps are missing
    PARTIAL = "partial"  # a fragment of one: nothing that a client could use
    DELETING = "deleting"
    FOREIGN = "foreign"  # it has a name of ours, and another owner


@dataclass(frozen=True, slots=True)
class RemoteTenant:
    """Something at the provider with a name as `tenant_name` gives them.

    Attributes:
        client_id: the client that the name stands for; it may be unknown here.
        detail: what it is and in which state, in words, without secrets.
        created_at: None when the provider doesn't say.
    """

    ref: str
    name: str
    client_id: UUID
    state: RemoteState
    detail: str
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at a tenant.

    Attributes:
        answer: the provider's own words, without secrets, for `pgworker why`.
    """

    state: TenantState
    answer: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything secret of a tenant, by the field names of `tenant_secrets`; absent where none.

    Keys: `dsn`, `db_password`, `publishable_key`, `secret_key`, `anon_key`, `service_role_key`.
    """

    fields: dict[str, str] = field(repr=False)


class Provider(Protocol):
    """Creates tenants and tells of them. Every method may raise a `JobError` of any kind.

    No method repeats a request that may have taken effect: that is for its caller to decide.

    Attributes:
        name: `supabase`, `postgres`; what clients ask for in `additional_settings`.
        lookup_is_final: a complete look-up shows everything that was created before it. False
            where listings may lag: then an unknown outcome is looked up for a while.
        ready_checks: how many looks in a row must find a tenant ready.
    """

    name: str
    lookup_is_final: bool
    ready_checks: int

    @property
    def credential(self) -> str:
        """Name the credential in use without revealing it; breakers go by it."""
        ...

    async def check_credential(self) -> None:
        """Use the credential once, for something cheap that changes nothing.

        Raises:
            CredentialRefused: it isn't taken.
            JobError: no answer that says so, or the contrary.
        """
        ...

    def tenant_name(self, client_id: UUID) -> str:
        """Return the deterministic name of the client's tenant."""
        ...

    async def find(self, name: str) -> Tenant | None:
        """Return our tenant of exactly that name, or None when a complete look-up has none.

        Raises:
            JobError: the look-up was not complete, or found two, or somebody else's.
        """
        ...

    async def list_tenants(self) -> tuple[RemoteTenant, ...]:
        """Return everything there that bears a name as `tenant_name` gives them.

        Where another pgworker shares the organisation or the server, its tenants are among them.

        Raises:
            JobError: the listing was not complete: nothing may be concluded.
        """
        ...

    async def create(self, request: TenantRequest) -> Tenant:
        """Create the tenant; called once for each intent that is known to be open.

        Raises:
            OutcomeUnknown: it may have been created.
            LeaseLost: it is too late to send the request.
        """
        ...

    async def observe(self, ref: str) -> Observation:
        """Look once whether the tenant is up."""
        ...

    async def credentials(self, ref: str, database_password: str, steps: Steps) -> Credentials:
        """Fetch what is needed to use the tenant, or make what of it is missing. Safe to repeat."""
        ...

    async def set_password(self, ref: str, database_password: str) -> None:
        """Give the tenant this password. Repeating it with the same one is safe."""
        ...

    def connect(
        self, ref: str, credentials: Credentials
    ) -> AbstractAsyncContextManager[TenantConnection]:
        """Open the way that SQL takes to the tenant."""
        ...

    async def check_services(self, ref: str, credentials: Credentials) -> None:
        """Prove, through the customer's own path, that the tenant's services answer.

        Raises:
            SmokeCheckFailed: one doesn't, and won't by waiting.
            Transient: one doesn't yet.
        """
        ...

    async def delete(self, ref: str) -> None:
        """Delete the tenant for good. Never called by provisioning."""
        ...

    async def aclose(self) -> None:
        """Close what the provider holds open."""
        ...
