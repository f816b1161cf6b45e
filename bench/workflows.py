"""Workflows for `pgworker run` under measurement, named by PGWORKER_WORKFLOW as users do."""

from __future__ import annotations

import atexit
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

from bench.contender import peak_mib
from pgworker.models import ClientStatus, Done, Outcome, Snooze
from pgworker.providers.base import Observation, Provider, TenantState
from pgworker.provisioning.phases.await_project import AwaitProject
from pgworker.provisioning.phases.base import PhaseContext
from pgworker.provisioning.workflow import Workflow


class NoOp:
    """Does nothing, under the name of a workflow's first phase."""

    name = "create_project"
    client_status = ClientStatus.CREATING_PROJECT

    async def run(self, ctx: PhaseContext) -> Outcome:
        return Done()


class ComingUp:
    """A stub of a provider whose every project is still coming up: it answers at once."""

    async def observe(self, ref: str) -> Observation:
        return Observation(TenantState.COMING_UP, "COMING_UP")


class AwaitForEver:
    """The real `await_project` before that stub; notes how late each look comes.

    A look is due when the delay is over that the look before it asked for. What is noted goes to
    the file BENCH_NOTES when the process leaves: when each look came (seconds, monotonic) and how
    late.
    """

    name = AwaitProject.name
    client_status = AwaitProject.client_status

    def __init__(self) -> None:
        self._phase = AwaitProject()
        self._due: dict[int, float] = {}
        self._looks: list[tuple[float, float]] = []
        if "BENCH_NOTES" in os.environ:
            atexit.register(self._write, Path(os.environ["BENCH_NOTES"]))

    async def run(self, ctx: PhaseContext) -> Outcome:
        now = time.monotonic()
        if ctx.job.id in self._due:
            self._looks.append((now, now - self._due[ctx.job.id]))
        outcome = await self._phase.run(replace(ctx, provider=cast("Provider", ComingUp())))
        assert isinstance(outcome, Snooze), "the stub is never ready"
        self._due[ctx.job.id] = time.monotonic() + outcome.delay.total_seconds()
        return outcome

    def _write(self, path: Path) -> None:
        path.write_text(json.dumps({"looks": self._looks, "peak_mib": peak_mib()}))


NO_OP = Workflow("provision", (NoOp(),))
AWAITING = Workflow("provision", (AwaitForEver(),))
