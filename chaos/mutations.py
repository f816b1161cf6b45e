"""pgworker with a safeguard removed: what happens to clients then, and does the checker find it?

A campaign without violations proves something only if it finds a violation for each of these.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos.failpoints import Failpoint
from pgworker.providers.supabase.provider import SupabaseProvider
from pgworker.provisioning.step_ledger import StepLedger
from pgworker.tenants.steps import Step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from chaos.failpoints import FailpointPlan

# The environment variable that names a worker's mutation.
MUTATION = "CHAOS_MUTATION"
NO_DEADLINE = float("inf")


def _change_nothing() -> None:
    """Leave the worker as it is."""


def _skip_lookup() -> None:
    async def find(_: Any, __: str) -> None:
        return None

    SupabaseProvider.find = find  # type: ignore[method-assign, assignment]


def _skip_create_record() -> None:
    record = StepLedger.record

    @asynccontextmanager
    async def record_nothing(
        ledger: StepLedger, step: Step, target: str, **options: Any
    ) -> AsyncIterator[float]:
        if step is Step.CREATE_PROJECT:
            yield NO_DEADLINE
        else:
            async with record(ledger, step, target, **options) as must_leave_before:
                yield must_leave_before

    StepLedger.record = record_nothing  # type: ignore[method-assign, assignment]


@dataclass(frozen=True, slots=True)
class Mutation:
    """pgworker without one safeguard.

    Attributes:
        removed: the safeguard, in words.
        failpoints: faults that it protects from.
        violated: an invariant that doesn't hold without it; None: all of them hold.
        apply: removes it from a worker's process.
        sql: removes it from a platform's database.
    """

    removed: str
    failpoints: FailpointPlan
    violated: str | None
    apply: Callable[[], None] = _change_nothing
    sql: str = ""


_REQUEUED = ((Failpoint("before ledger.record_ref", "requeue"),),)
_ANSWER_UNREAD = ((Failpoint("after POST /v1/projects", "die"),),)

MUTATIONS = {
    "nothing": Mutation("nothing", _ANSWER_UNREAD, None),
    "fence": Mutation(
        "the check of the fencing token in pgworker.check_claim",
        _REQUEUED,
        "no_write_after_a_lost_fence",
        sql=(
            "create or replace function pgworker.check_claim(p_job_id bigint, p_claim_token bigint)"
            " returns void language sql as 'select'"
        ),
    ),
    "look-up": Mutation(
        "the look-up before a create",
        _ANSWER_UNREAD,
        "one_project_per_client",
        apply=_skip_lookup,
    ),
    "step": Mutation(
        "the record of a create before it is sent",
        _ANSWER_UNREAD,
        "one_project_per_client",
        apply=_skip_create_record,
    ),
}
