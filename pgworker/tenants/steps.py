"""Effects outside, recorded before they are sent and after their answers have come."""

from __future__ import annotations

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
        self, step: Step, target: str, *, hold_for: timedelta | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Commit that the step is about to be taken, and how it ended.

        `OutcomeUnknown` leaves its outcome unknown, any other refusal means that it did not
        happen. Whoever is stopped in between leaves it as intended.

        Args:
            step: what is done.
            target: to what.
            hold_for: the lease lasts at least so long from now.

        Raises:
            LeaseLost: somebody else holds the job now; the step must not be taken.
        """
        ...

    async def found(self, step: Step, targets: Sequence[str]) -> None:
        """Record what a look outside has found: these did happen."""
        ...


class NoSteps:
    """Records nothing: for schema syncs without a platform."""

    @asynccontextmanager
    async def taking(
        self,
        step: Step,  # noqa: ARG002
        target: str,  # noqa: ARG002
        *,
        hold_for: timedelta | None = None,  # noqa: ARG002
    ) -> AsyncIterator[None]:
        """Do nothing before and after."""
        yield

    async def found(self, step: Step, targets: Sequence[str]) -> None:
        """Do nothing."""
