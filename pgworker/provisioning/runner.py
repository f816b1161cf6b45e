"""Runs a job's present phase, and finds the phases that users add."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, NamedTuple

from pgworker.db.queries import load
from pgworker.errors import (
    BadConfiguration,
    CredentialRefused,
    JobError,
    Permanent,
    Transient,
)
from pgworker.models import Advance, Complete, Done, Job, Outcome, Snooze, Transition
from pgworker.provisioning.breakers import ADMITTED, Breakers
from pgworker.provisioning.ledger import Ledger
from pgworker.provisioning.phases.await_project import AwaitProject
from pgworker.provisioning.phases.base import Phase, PhaseContext, PhaseSettings
from pgworker.provisioning.phases.create_project import CreateProject
from pgworker.provisioning.phases.schema_sync import SchemaSync
from pgworker.provisioning.phases.smoke_checks import SmokeChecks
from pgworker.provisioning.prefetch import PhaseInput, PhaseInputLoader
from pgworker.provisioning.step_ledger import StepLedger
from pgworker.telemetry import get_logger
from pgworker.tenants.connection import StatementError
from pgworker.tenants.redaction import scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pgworker.db.pool import Pool
    from pgworker.providers.base import Provider
    from pgworker.tenants.secrets import TenantSecrets

log = get_logger()


class PhaseQueries(NamedTuple):
    """The statements of `sql/queries/phases.sql`."""

    register_phase: str
    forget_phases: str


PHASE_QUERIES = load(PhaseQueries, "queries/phases.sql")

ENTRY_POINTS = "pgworker.workflows"


@dataclass(frozen=True, slots=True)
class Workflow:
    """Phases in their order. Names are unique: a job's `job_type` tells where it is."""

    name: str
    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        """Refuse what couldn't be told apart later."""
        names = [phase.name for phase in self.phases]
        if not names or len(set(names)) != len(names):
            raise BadConfiguration(f"workflow {self.name}: phases need names of their own: {names}")

    def position_of(self, job_type: str) -> int:
        """Return the index of a phase.

        Raises:
            Permanent: there is none of that name.
        """
        for index, phase in enumerate(self.phases):
            if phase.name == job_type:
                return index
        names = ", ".join(phase.name for phase in self.phases)
        raise Permanent(f"workflow {self.name} has no phase {job_type} (it has {names})")


PROVISION = Workflow("provision", (CreateProject(), AwaitProject(), SchemaSync(), SmokeChecks()))


def find_workflows(setting: str | None) -> dict[str, Workflow]:
    """Return the workflows: ours, those of installed packages, that of PGWORKER_WORKFLOW.

    A later one of the same name replaces an earlier one.

    Raises:
        BadConfiguration: one can't be imported, or isn't a `Workflow`.
    """
    found = {PROVISION.name: PROVISION}
    for point in entry_points(group=ENTRY_POINTS):
        workflow = _checked(point.load(), f"the entry point {point.name} of {ENTRY_POINTS}")
        found[workflow.name] = workflow
    if setting is not None:
        module, _, attribute = setting.partition(":")
        try:
            value = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise BadConfiguration(f"PGWORKER_WORKFLOW: {setting}: {error}") from error
        workflow = _checked(value, f"PGWORKER_WORKFLOW: {setting}")
        found[workflow.name] = workflow
    return found


def _checked(value: object, where: str) -> Workflow:
    if isinstance(value, Workflow):
        return value
    raise BadConfiguration(f"{where} is not a pgworker Workflow")


class PhaseRunner:
    """Runs one phase of one job; the function that a `Worker` is handed is its `run`."""

    def __init__(
        self,
        pool: Pool,
        workflows: dict[str, Workflow],
        provider_named: Callable[[str | None], Provider],
        tenant_secrets: TenantSecrets,
        *,
        settings: PhaseSettings,
    ) -> None:
        """Take what phases need; `provider_named(None)` returns the default provider."""
        self._pool = pool
        self._workflows = workflows
        self._provider_named = provider_named
        self._secrets = tenant_secrets
        self._settings = settings
        self._ledger = Ledger(pool, tenant_secrets)
        self._breakers = Breakers(pool)
        self._inputs = PhaseInputLoader(pool)

    async def register(self) -> None:
        """Tell the database the phases of all workflows, for its views and for `claim`."""
        async with self._pool.acquire() as connection, connection.transaction():
            for workflow in self._workflows.values():
                for ordinal, phase in enumerate(workflow.phases, start=1):
                    await connection.execute(
                        PHASE_QUERIES.register_phase,
                        workflow.name,
                        phase.name,
                        phase.client_status,
                        ordinal,
                    )
                await connection.execute(
                    PHASE_QUERIES.forget_phases,
                    workflow.name,
                    [phase.name for phase in workflow.phases],
                )

    async def prepare(self, jobs: Sequence[Job]) -> None:
        """Read for jobs that were just claimed, with one statement, what their phases must know."""
        await self._inputs.prefetch(jobs)

    async def run(self, job: Job) -> Transition:
        """Run the job's present phase; return what becomes of the job.

        Raises:
            JobError: the phase failed; its message holds no secret of this tenant.
            LeaseLost: another worker holds the job now.
        """
        workflow = self._workflows[job.workflow]
        position = workflow.position_of(job.job_type)
        phase_input = await self._inputs.get(job)
        client = phase_input.client
        provider = self._choose_provider(phase_input)
        admission = ADMITTED
        if phase_input.any_breaker_is_open:
            admission = await self._breakers.admit(provider.credential, job)
        if admission.wait is not None:
            return admission.wait
        steps = StepLedger(self._pool, client.id, job)
        context = PhaseContext(
            job=job,
            client=client,
            provider=provider,
            ledger=self._ledger,
            secrets=self._secrets,
            settings=self._settings,
            steps=steps,
            log=log,
        )
        try:
            if admission.open_reason is not None:
                wait = await self._breakers.probe(provider, admission.open_reason)
                if wait is not None:
                    return wait
            outcome = await _run(workflow.phases[position], context)
            await steps.flush()
        except CredentialRefused as error:
            await self._breakers.open(error.credential, str(error))
            raise
        except JobError as error:
            await self._redact(error, job)
            if admission.open_reason is not None:
                await self._breakers.close(provider.credential)
            raise
        if admission.open_reason is not None:
            # Not before the phase's end: a token may be taken, and yet lack a permission.
            await self._breakers.close(provider.credential)
        if isinstance(outcome, Snooze):
            # The reason may quote the other side.
            return replace(outcome, reason=scrub(outcome.reason))
        return _after(workflow, position, outcome)

    def _choose_provider(self, phase_input: PhaseInput) -> Provider:
        """Return who made the tenant, else whom the client asks for, else the default."""
        if phase_input.provider is not None:
            return self._provider_named(phase_input.provider)
        wish = phase_input.client.settings.get("provider")
        return self._provider_named(None if wish is None else str(wish))

    async def _redact(self, error: JobError, job: Job) -> None:
        """Take the tenant's own secrets out of the message: the last of several gates."""
        try:
            known = await self._secrets.of_client(job.client_id)
        except BadConfiguration:
            # They can't be opened, so the phase hasn't seen them either.
            known = {}
        error.args = (scrub(str(error), known.values()),)


async def _run(phase: Phase, context: PhaseContext) -> Outcome:
    """Run a phase; what it raises on purpose but isn't a `JobError` is a person's matter.

    Raises:
        JobError: as the phase; `Permanent` for a missing key or setting, and for SQL that the
            tenant's server refused, unless it may take it later (`Transient`).
    """
    try:
        return await phase.run(context)
    except BadConfiguration as error:
        raise Permanent(str(error)) from error
    except StatementError as error:
        kind = Transient if error.is_passing else Permanent
        raise kind(f"{phase.name}: {error.message} [{error.sqlstate}]") from error


def _after(workflow: Workflow, position: int, done: Done) -> Transition:
    if position + 1 == len(workflow.phases):
        return Complete(done)
    return Advance(workflow.phases[position + 1].name, done)
