"""What a phase is, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pgworker.models import Client, ClientStatus, Job, Outcome
from pgworker.providers.base import Credentials, Provider
from pgworker.provisioning.ledger import Ledger
from pgworker.tenants.secrets import TenantSecrets
from pgworker.tenants.steps import Steps

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from structlog.stdlib import BoundLogger

    from pgworker.tenants.connection import TenantConnection


@dataclass(frozen=True, slots=True)
class PhaseSettings:
    """What phases can be told.

    Attributes:
        migrations_dir: the canonical migrations.
        project_poll: between two looks at a project that comes up.
        project_timeout: after which a person must look.
        create_lookup: how long an ambiguous create is looked for before another is allowed.
    """

    migrations_dir: Path
    project_poll: timedelta = timedelta(seconds=5)
    project_timeout: timedelta = timedelta(seconds=1200)
    create_lookup: timedelta = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class PhaseContext:
    """One run of a phase: the job that is held, its client, and the ways to act for it."""

    job: Job
    client: Client
    provider: Provider
    ledger: Ledger
    secrets: TenantSecrets
    settings: PhaseSettings
    steps: Steps
    log: BoundLogger

    async def credentials(self) -> Credentials:
        """Return what is stored of the tenant's credentials, in clear."""
        return Credentials(await self.secrets.of_client(self.client.id))

    def connect(self, credentials: Credentials) -> AbstractAsyncContextManager[TenantConnection]:
        """Open the way that SQL takes to the client's tenant."""
        return self.provider.connect(self.ref, credentials)

    @property
    def ref(self) -> str:
        """The tenant's ref, once `create_project` has ended."""
        assert self.client.project_ref is not None, "create_project comes first"
        return self.client.project_ref


class Phase(Protocol):
    """A step of a workflow, safe to run again from any line."""

    @property
    def name(self) -> str:
        """The `job_type` of a job that is in it."""
        ...

    @property
    def client_status(self) -> ClientStatus | None:
        """What the client shows meanwhile; None leaves it as it is."""
        ...

    async def run(self, ctx: PhaseContext) -> Outcome:
        """Do the step.

        Raises:
            JobError: of any kind; the kind decides what becomes of the job.
            LeaseLost: somebody else holds the job now.
        """
        ...
