"""Effects outside, recorded before they are sent and after their answers have come."""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


class Step(StrEnum):
    """What can be done outside. Each is looked up before it is done again."""

    CREATE_PROJECT = "create_project"  # target: its name
    SET_PASSWORD = "set_password"  # noqa: S105  # target: the tenant's ref
    CREATE_API_KEY = "create_api_key"  # target: the key's name
    APPLY_MIGRATION = "apply_migration"  # target: the file's version


class Steps(Protocol):
    """The ledger of one job's steps, as who takes them sees it."""

    def taking(
        self,
        step: Step,
        target: str,
        *,
        takes_at_most: timedelta | None = None,
        found: Sequence[str] = (),
    ) -> AbstractAsyncContextManager[float]:
        """Commit that the step is about to be taken, and how it ended.

        `OutcomeUnknown` leaves its outcome unknown, any other refusal means that it did not
        happen. Whoever is stopped in between leaves it as intended.

        Yields the moment, on `time.monotonic`, after which a request that isn't idempotent must
        not leave any more, because the lease might not outlast it: a process may stand still
        between this line and the next.

        Args:
            step: what is done.
            target: to what.
            takes_at_most: the request's time limit; the lease is made to last longer.
            found: other targets of the step, as `found` takes them.

        Raises:
            LeaseLost: somebody else holds the job now; the step must not be taken.
        """
        ...

    async def found(self, step: Step, targets: Sequence[str]) -> None:
        """Record what a look outside has found: these did happen."""
        ...

    def hand_over(self) -> list[int]:
        """Return the steps that have happened, to a statement that records them along with more."""
        ...


class NoSteps:
    """Records nothing: for schema syncs without a platform."""

    @asynccontextmanager
    async def taking(
        self,
        step: Step,  # noqa: ARG002
        target: str,  # noqa: ARG002
        *,
        takes_at_most: timedelta | None = None,  # noqa: ARG002
        found: Sequence[str] = (),  # noqa: ARG002
    ) -> AsyncIterator[float]:
        """Do nothing before and after."""
        yield math.inf

    async def found(self, step: Step, targets: Sequence[str]) -> None:
        """Do nothing."""

    def hand_over(self) -> list[int]:
        """Return nothing."""
        return []
