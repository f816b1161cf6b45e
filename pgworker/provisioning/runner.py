"""Runs a job's present phase."""

from __future__ import annotations

import asyncio
from dataclasses import replace
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
from pgworker.provisioning.breakers import ADMITTED, Admission, Breakers
from pgworker.provisioning.ledger import Ledger
from pgworker.provisioning.phases.base import (
    Phase,
    PhaseContext,
    PhaseSettings,
    get_time_limit,
    may_cost_money,
)
from pgworker.provisioning.prefetch import PhaseInput, PhaseInputLoader
from pgworker.provisioning.step_ledger import StepLedger
from pgworker.telemetry import get_logger
from pgworker.tenants.connection import StatementError
from pgworker.tenants.redaction import scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pgworker.db.pool import Pool
    from pgworker.providers.base import Provider
    from pgworker.provisioning.workflow import Workflow
    from pgworker.tenants.secrets import TenantSecrets

log = get_logger()


class PhaseQueries(NamedTuple):
    """The statements of `sql/queries/phases.sql`."""

    register_phase: str
    unregister_phases: str


PHASE_QUERIES = load(PhaseQueries, "queries/phases.sql")


class PhaseRunner:
    """Runs one phase of one job; `run` is the function that a `Worker` is given."""

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
        """Write the phases of all workflows to `pgworker.phases`, for the views and for claims."""
        # One transaction: the views must not show a workflow with half of its phases.
        async with self._pool.acquire() as connection, connection.transaction():
            for workflow in self._workflows.values():
                for ordinal, phase in enumerate(workflow.phases, start=1):
                    await connection.execute(
                        PHASE_QUERIES.register_phase,
                        workflow.name,
                        phase.name,
                        phase.client_status,
                        ordinal,
                        may_cost_money(phase),
                    )
                await connection.execute(
                    PHASE_QUERIES.unregister_phases,
                    workflow.name,
                    [phase.name for phase in workflow.phases],
                )

    async def prepare(self, jobs: Sequence[Job]) -> None:
        """Prefetch the inputs of jobs that were just claimed, with one statement."""
        await self._inputs.prefetch(jobs)

    async def run(self, job: Job) -> Transition:
        """Run the job's present phase; return the transition that follows.

        Raises:
            JobError: the phase failed; its message holds no secret of this tenant.
            LeaseLost: another worker holds the job now.
        """
        workflow = self._workflows[job.workflow]
        position = workflow.find_position(job.job_type)
        phase_input = await self._inputs.get(job)
        provider = self._choose_provider(phase_input)
        # Nearly always no breaker is open, and the question costs no statement.
        admission = ADMITTED
        if phase_input.any_breaker_is_open:
            admission = await self._breakers.admit(provider.credential, job)
        if admission.wait is not None:
            return admission.wait
        steps = StepLedger(self._pool, phase_input.client.id, job)
        context = PhaseContext(
            job=job,
            client=phase_input.client,
            provider=provider,
            ledger=self._ledger,
            secrets=self._secrets,
            settings=self._settings,
            steps=steps,
            log=log,
        )
        outcome = await self._run_admitted(workflow.phases[position], context, steps, admission)
        if isinstance(outcome, Snooze):
            # The reason may quote the other side.
            return replace(outcome, reason=scrub(outcome.reason))
        return _follow(workflow, position, outcome)

    def _choose_provider(self, phase_input: PhaseInput) -> Provider:
        """Return the provider of the tenant, else the one the client asks for, else the default."""
        if phase_input.provider is not None:
            # Whatever the client asks for by now: this is where its tenant was created.
            return self._provider_named(phase_input.provider)
        wish = phase_input.client.settings.get("provider")
        return self._provider_named(None if wish is None else str(wish))

    async def _run_admitted(
        self, phase: Phase, context: PhaseContext, steps: StepLedger, admission: Admission
    ) -> Outcome:
        """Run the phase, and let the breaker of its credential follow what it shows."""
        credential = context.provider.credential
        is_probe = admission.open_reason is not None
        try:
            if admission.open_reason is not None:
                wait = await self._breakers.probe(context.provider, admission.open_reason)
                if wait is not None:
                    return wait
            outcome = await _run(phase, context)
            await steps.flush()
        except CredentialRefused as error:
            await self._breakers.open(error.credential, str(error))
            raise
        except JobError as error:
            await self._redact(error, context.job)
            if is_probe:
                await self._breakers.close(credential)
            raise
        if is_probe:
            # Only now that the phase has ended: a token may be accepted, and lack a permission.
            await self._breakers.close(credential)
        return outcome

    async def _redact(self, error: JobError, job: Job) -> None:
        """Remove the tenant's own secrets from the message."""
        try:
            known = await self._secrets.get_fields(job.client_id)
        except BadConfiguration:
            # They can't be decrypted, so the phase hasn't seen them either.
            known = {}
        error.args = (scrub(str(error), known.values()),)


async def _run(phase: Phase, context: PhaseContext) -> Outcome:
    """Run a phase; an error of ours that isn't a `JobError` is for a person to settle.

    Raises:
        JobError: as the phase; `Transient` past its time limit; `Permanent` for a missing key or
            setting, and for SQL that the tenant's server refused, unless it may accept it later
            (`Transient`).
    """
    limit = get_time_limit(phase, context.settings.phase_timeout)
    try:
        async with asyncio.timeout(limit.total_seconds()) as deadline:
            return await phase.run(context)
    except TimeoutError as error:
        if not deadline.expired():
            raise  # the phase's own, which it didn't expect: a bug
        raise Transient(
            f"{phase.name} was cancelled after {limit.total_seconds():g} s "
            "(PGWORKER_PHASE_TIMEOUT_SECONDS)"
        ) from error
    except BadConfiguration as error:
        raise Permanent(str(error)) from error
    except StatementError as error:
        raise error.to_job_error(phase.name) from error


def _follow(workflow: Workflow, position: int, done: Done) -> Transition:
    if position + 1 == len(workflow.phases):
        return Complete(done)
    return Advance(workflow.phases[position + 1].name, done)
