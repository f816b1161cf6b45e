"""pgworker with a safeguard taken out: what happens to clients then, and does the checker see it?

A campaign that finds nothing proves something only if it would find what is missing here.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos.failpoints import Order
from pgworker.providers.supabase.provider import SupabaseProvider
from pgworker.provisioning.step_ledger import StepLedger
from pgworker.tenants.steps import Step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from chaos.sweep import Orders

# Tells a worker what it is to lack, in its environment.
SABOTAGE = "CHAOS_SABOTAGE"
FOR_EVER = float("inf")


def _leave_alone() -> None:
    """Take nothing out."""


def _find_nothing() -> None:
    async def find(_: Any, __: str) -> None:
        return None

    SupabaseProvider.find = find  # type: ignore[method-assign, assignment]


def _record_no_create() -> None:
    taking = StepLedger.taking

    @asynccontextmanager
    async def forgetful(
        ledger: StepLedger, step: Step, target: str, **options: Any
    ) -> AsyncIterator[float]:
        if step is Step.CREATE_PROJECT:
            yield FOR_EVER
        else:
            async with taking(ledger, step, target, **options) as must_leave_before:
                yield must_leave_before

    StepLedger.taking = forgetful  # type: ignore[method-assign, assignment]


@dataclass(frozen=True, slots=True)
class Sabotage:
    """One safeguard, and how to live without it.

    Attributes:
        missing: what is taken out, in words.
        orders: faults that it stands against.
        found: an invariant that doesn't hold without it; None: all of them hold.
        take_out: from a worker's process.
        sql: takes it out of a platform's database.
    """

    missing: str
    orders: Orders
    found: str | None
    take_out: Callable[[], None] = _leave_alone
    sql: str = ""


_USURPED = ((Order("before tenants.fulfil", "usurp"),),)
_ANSWER_NEVER_READ = ((Order("after POST /v1/projects", "die"),),)

SABOTAGES = {
    "nothing": Sabotage("nothing", _ANSWER_NEVER_READ, None),
    "fence": Sabotage(
        "the check of the fencing token in pgworker.hold",
        _USURPED,
        "no_write_after_a_lost_fence",
        sql=(
            "create or replace function pgworker.hold(p_job_id bigint, p_claim_token bigint)"
            " returns void language sql as 'select'"
        ),
    ),
    "look-up": Sabotage(
        "the look-up before a create",
        _ANSWER_NEVER_READ,
        "one_project_per_client",
        take_out=_find_nothing,
    ),
    "step": Sabotage(
        "the record of a create before it is sent",
        _ANSWER_NEVER_READ,
        "one_project_per_client",
        take_out=_record_no_create,
    ),
}
