"""Workflows of measured `pgworker run` processes, chosen by PGWORKER_WORKFLOW as users do."""

from __future__ import annotations

import atexit
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

from bench.contender import read_peak_mib
from pgworker.models import ClientStatus, Done, Outcome, Snooze
from pgworker.providers.base import Observation, Provider, TenantState
from pgworker.provisioning.phases.await_project import AwaitProject
from pgworker.provisioning.phases.base import PhaseContext
from pgworker.provisioning.workflow import Workflow


class NoOp:
    """A phase that does nothing, with the name of the first phase."""

    name = "create_project"
    client_status = ClientStatus.CREATING_PROJECT

    async def run(self, ctx: PhaseContext) -> Outcome:
        return Done()


class ComingUp:
    """A stub of a provider: it answers at once that the project is coming up."""

    async def observe(self, ref: str) -> Observation:
        return Observation(TenantState.COMING_UP, "COMING_UP")


class AwaitForever:
    """The real `await_project` with that stub; records the delay of each poll.

    A poll is due when the snooze of the one before it is over. When the process ends it writes to
    the file BENCH_NOTES when each poll came (seconds, monotonic) and its delay.
    """

    name = AwaitProject.name
    client_status = AwaitProject.client_status

    def __init__(self) -> None:
        self._phase = AwaitProject()
        self._due: dict[int, float] = {}
        self._polls: list[tuple[float, float]] = []
        if "BENCH_NOTES" in os.environ:
            atexit.register(self._write, Path(os.environ["BENCH_NOTES"]))

    async def run(self, ctx: PhaseContext) -> Outcome:
        now = time.monotonic()
        if ctx.job.id in self._due:
            self._polls.append((now, now - self._due[ctx.job.id]))
        outcome = await self._phase.run(replace(ctx, provider=cast("Provider", ComingUp())))
        assert isinstance(outcome, Snooze), "the stub is never ready"
        self._due[ctx.job.id] = time.monotonic() + outcome.delay.total_seconds()
        return outcome

    def _write(self, path: Path) -> None:
        path.write_text(json.dumps({"polls": self._polls, "peak_mib": read_peak_mib()}))


NO_OP = Workflow("provision", (NoOp(),))
AWAITING = Workflow("provision", (AwaitForever(),))
