"""The record of effects outside: written before each is requested, and after its answer."""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


class Step(StrEnum):
    """An effect outside. Each is looked up before it is requested again."""

    CREATE_PROJECT = "create_project"  # target: its name
    SET_PASSWORD = "set_password"  # noqa: S105  # target: the tenant's ref
    CREATE_API_KEY = "create_api_key"  # target: the key's name
    APPLY_MIGRATION = "apply_migration"  # target: the file's version


class Steps(Protocol):
    """Records the steps of one job."""

    def record(
        self,
        step: Step,
        target: str,
        *,
        time_limit: timedelta | None = None,
        confirmed: Sequence[str] = (),
    ) -> AbstractAsyncContextManager[float]:
        """Commit that a step is about to happen; afterwards, record how it ended.

        `OutcomeUnknown` leaves the outcome unknown; any other error means that the step did not
        happen. A process that dies in between leaves the step as intended.

        Yields a deadline on `time.monotonic`: a request that isn't idempotent must not leave after
        it, because the lease might not outlast the request. The process may have been frozen since
        the step was committed.

        Args:
            step: the effect.
            target: what it is done to.
            time_limit: of the request; the lease is extended beyond it.
            confirmed: other targets of the step, as `confirm` takes them.

        Raises:
            LeaseLost: another worker holds the job now; the step must not happen.
        """
        ...

    async def confirm(self, step: Step, targets: Sequence[str]) -> None:
        """Record that a look outside has found the effects of these steps."""
        ...

    def drain_completed(self) -> list[int]:
        """Return the ids of completed steps that the caller's own statement will record."""
        ...


class NoSteps:
    """Records nothing: for schema syncs without a platform."""

    @asynccontextmanager
    async def record(
        self,
        step: Step,  # noqa: ARG002
        target: str,  # noqa: ARG002
        *,
        time_limit: timedelta | None = None,  # noqa: ARG002
        confirmed: Sequence[str] = (),  # noqa: ARG002
    ) -> AsyncIterator[float]:
        """Do nothing before and after."""
        yield math.inf

    async def confirm(self, step: Step, targets: Sequence[str]) -> None:
        """Do nothing."""

    def drain_completed(self) -> list[int]:
        """Return nothing."""
        return []
