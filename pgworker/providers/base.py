"""What a provider of tenants must be able to do. Nothing here knows a job or the queue."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from pgworker.providers.rate_limits import Limiter
    from pgworker.settings import Settings
    from pgworker.tenants.connection import TenantConnection
    from pgworker.tenants.steps import Steps


class TenantState(StrEnum):
    """A tenant's state, as its provider reports it."""

    COMING_UP = "coming_up"  # wait, then check again
    READY = "ready"  # every service that we use answers
    GONE = "gone"  # it existed and no longer does: a person must look
    BROKEN = "broken"  # it will not come up by itself: a person must look


@dataclass(frozen=True, slots=True)
class TenantRequest:
    """What to create. The name is deterministic: finding it proves that the tenant is ours.

    Attributes:
        region: as the client asks for it, or None for the provider's default.
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
    """A tenant that exists: a project, or a database.

    Attributes:
        ref: the provider's own identifier; every other method takes it.
        url: where a client finds it; holds no secret.
    """

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
        repair: how a person completes an unfinished tenant or takes a foreign one back; None
            when the provider knows no way.
    """

    ref: str
    name: str
    client_id: UUID
    state: RemoteState
    detail: str
    created_at: datetime | None = None
    repair: str | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """The result of one look at a tenant.

    Attributes:
        answer: the provider's own words, without secrets, for `pgworker why`.
    """

    state: TenantState
    answer: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """The secrets of a tenant, by the field names of `tenant_secrets`.

    Keys, each absent where the tenant has no such secret: `dsn`, `db_password`,
    `publishable_key`, `secret_key`, `anon_key`, `service_role_key`.
    """

    fields: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of one check of a provider; a line of `pgworker doctor`.

    Attributes:
        detail: what was found, without secrets.
        advice: what to do; None when nothing is to be done.
    """

    is_ok: bool
    detail: str
    advice: str | None = None


class Provider(Protocol):
    """Creates tenants and reports on them. Every method may raise a `JobError` of any kind.

    No method repeats a request that may have taken effect: the caller decides about that.
    """

    @property
    def name(self) -> str:
        """What clients ask for in `additional_settings`, and the name of the entry point."""
        ...

    @property
    def credential(self) -> str:
        """An identifier of the credential in use that doesn't reveal it; breakers use it."""
        ...

    @property
    def lookup_is_final(self) -> bool:
        """Whether a complete look-up shows everything that was created before it.

        False when listings may lag: then an unknown outcome is looked up for a while.
        """
        ...

    @property
    def ready_checks(self) -> int:
        """How many observations in a row must find a tenant ready."""
        ...

    @property
    def required_secrets(self) -> tuple[tuple[str, ...], ...]:
        """What a ready tenant must have stored: of each group, one of the `Credentials`."""
        ...

    @property
    def create_timeout(self) -> timedelta:
        """How long `create` may take, from connecting to the last byte of the answer.

        The job's lease is extended beyond it. Where a second create beside the first would make a
        second tenant, `create` must raise `OutcomeUnknown` within this time.
        """
        ...

    async def check_credential(self) -> None:
        """Use the credential once, for something cheap that changes nothing.

        Raises:
            CredentialRefused: the provider refuses it.
            JobError: any other kind says nothing about the credential.
        """
        ...

    async def diagnose(self) -> tuple[Diagnosis, ...]:
        """Check what the provider depends on, for `pgworker doctor`; changes nothing.

        Raises:
            JobError: as `check_credential`; the doctor shows it as a failure.
        """
        ...

    def tenant_name(self, client_id: UUID) -> str:
        """Return the deterministic name of the client's tenant."""
        ...

    async def find(self, name: str) -> Tenant | None:
        """Return our tenant of exactly that name, or None when a complete look-up has none.

        Raises:
            JobError: the look-up was incomplete, or found two tenants, or one that isn't ours.
        """
        ...

    async def list_tenants(self) -> tuple[RemoteTenant, ...]:
        """Return everything there with a name as `tenant_name` gives them.

        When another pgworker shares the organisation or the server, its tenants are included.

        Raises:
            JobError: the listing was incomplete: nothing may be concluded from it.
        """
        ...

    async def create(self, request: TenantRequest) -> Tenant:
        """Create the tenant; called once for each create that the ledger has recorded.

        Raises:
            OutcomeUnknown: it may have been created.
            LeaseLost: it is too late to send the request.
        """
        ...

    async def observe(self, ref: str) -> Observation:
        """Look once whether the tenant is up."""
        ...

    async def credentials(self, ref: str, database_password: str, steps: Steps) -> Credentials:
        """Fetch the tenant's secrets; create those that are missing. Safe to repeat."""
        ...

    async def set_password(self, ref: str, database_password: str) -> None:
        """Give the tenant this password. Repeating it with the same one is safe."""
        ...

    def connect(
        self, ref: str, credentials: Credentials
    ) -> AbstractAsyncContextManager[TenantConnection]:
        """Open a connection that runs SQL in the tenant."""
        ...

    async def check_services(self, ref: str, credentials: Credentials) -> None:
        """Check that the tenant's services answer, over the path that customers use.

        Raises:
            SmokeCheckFailed: a service doesn't work, and waiting won't help.
            Transient: a service doesn't answer yet.
        """
        ...

    async def delete(self, ref: str) -> None:
        """Delete the tenant for good. Provisioning never calls it."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What the factory of a provider is given.

    Attributes:
        settings: of this process; a package of its own reads its own settings itself.
        platform_dsn: of the platform's database.
        limiter: grants requests to providers that limit their rate, shared by all workers.
    """

    settings: Settings
    platform_dsn: str = field(repr=False)
    limiter: Limiter


ProviderFactory = Callable[[ProviderContext], Provider]
