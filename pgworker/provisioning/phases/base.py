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
    """The settings that phases read.

    Attributes:
        migrations_dir: the canonical migrations.
        project_poll: between two looks at a project that is coming up.
        project_timeout: after which a person must look.
        phase_timeout: of one run of a phase that has no `timeout` of its own.
        create_lookup: how long an ambiguous create is looked for before another is allowed.
    """

    migrations_dir: Path
    project_poll: timedelta = timedelta(seconds=5)
    project_timeout: timedelta = timedelta(seconds=1200)
    create_lookup: timedelta = timedelta(seconds=120)
    phase_timeout: timedelta = timedelta(seconds=900)


@dataclass(frozen=True, slots=True)
class PhaseContext:
    """One run of a phase: the claimed job, its client, and the means to act for it.

    Attributes:
        job: with the checkpoint that its phases have recorded so far.
        client: as its row was when the phase started.
        provider: the one that has the tenant, or is to create it.
        ledger: of intents and secrets; each of its writes checks the fencing token.
        secrets: of all tenants, decrypted on demand.
        settings: of this process.
        steps: the ledger of effects outside.
        log: its entries carry the job's, the client's and the phase's name.
    """

    job: Job
    client: Client
    provider: Provider
    ledger: Ledger
    secrets: TenantSecrets
    settings: PhaseSettings
    steps: Steps
    log: BoundLogger

    async def credentials(self) -> Credentials:
        """Return the tenant's stored credentials, decrypted.

        Raises:
            BadConfiguration: the key that encrypted them is missing.
        """
        return Credentials(await self.secrets.get_fields(self.client.id))

    def connect(self, credentials: Credentials) -> AbstractAsyncContextManager[TenantConnection]:
        """Connect to the client's tenant, the way that its provider sends SQL there."""
        return self.provider.connect(self.ref, credentials)

    @property
    def ref(self) -> str:
        """The tenant's ref, once `create_project` has succeeded."""
        # A workflow whose phases are in another order is a bug of its author.
        assert self.client.project_ref is not None, "create_project comes first"
        return self.client.project_ref


class Phase(Protocol):
    """One step of a workflow, safe to repeat from any line (docs/phases.md).

    Two more attributes are optional, so they aren't part of the protocol. `may_cost_money = True`:
    the phase may create what the provider bills, and a person is asked before it is retried.
    `timeout`, a `timedelta`, replaces PGWORKER_PHASE_TIMEOUT_SECONDS: past it a run is cancelled,
    and counts as a failed attempt (kind `transient`).
    """

    @property
    def name(self) -> str:
        """The `job_type` of a job that is in it."""
        ...

    @property
    def client_status(self) -> ClientStatus | None:
        """The status that the client shows meanwhile; None leaves the one before."""
        ...

    async def run(self, ctx: PhaseContext) -> Outcome:
        """Do the step.

        Raises:
            JobError: of any kind; the kind decides what happens to the job.
            LeaseLost: another worker holds the job now.
        """
        ...


def get_time_limit(phase: Phase, default: timedelta) -> timedelta:
    """Return how long a run of the phase may take."""
    limit: timedelta | None = getattr(phase, "timeout", None)
    return limit or default


def may_cost_money(phase: Phase) -> bool:
    """Return whether a run may create what the provider bills; no, where a phase doesn't say."""
    return bool(getattr(phase, "may_cost_money", False))
