"""The scenarios of the boundary sweep, which together pass every step of a worker."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaos.failpoints import Failpoint
from pgworker.simulator import Answer, Drop, Faults, Hang
from tests.support.polling import eventually

if TYPE_CHECKING:
    from chaos.failpoints import FailpointPlan
    from chaos.testbed import ProviderKind
    from chaos.workers import ChaosWorker

# The first starts a drain, the second ends the phases.
SIGTERMS = 2


async def _do_nothing(_: ChaosWorker) -> None:
    """Let the worker work."""


def _no_faults(_: Faults, __: str) -> None:
    """Let the provider work."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way for a client to become ready.

    Attributes:
        order_faults: orders the provider's faults for the project of this name.
        disturb: is called for a worker while it works.
        simulated: settings of the simulator.
        failpoints: that lead into the scenario, for each worker.
        arguments: of the worker's command.
        exit_code: of a worker that was disturbed.
    """

    name: str
    kind: ProviderKind
    order_faults: Callable[[Faults, str], None] = _no_faults
    disturb: Callable[[ChaosWorker], Coroutine[Any, Any, None]] = _do_nothing
    simulated: Mapping[str, Any] = field(default_factory=dict)
    failpoints: FailpointPlan = ()
    arguments: tuple[str, ...] = ("run", "--drain")
    exit_code: int = 0


def _flaky_provider(faults: Faults, project: str) -> None:
    """Order every kind of failed request once."""
    too_many = Answer(429, headers={"X-RateLimit-Reset": "0", "Retry-After": "0"})
    unauthorized = Answer(401, {"message": "Unauthorized"})
    faults.order(operation="create_project", project=project, fault=too_many)
    faults.order(operation="create_project", project=project, fault=Answer(504, after_effect=True))
    faults.order(operation="get_project", project=project, fault=unauthorized)
    faults.order(operation="get_health", project=project, fault=Answer(503))
    faults.order(operation="list_api_keys", project=project, fault=Drop())
    faults.order(
        operation="run_query",
        project=project,
        contains="20260101000100",
        fault=Answer(544, after_effect=True),
    )
    faults.order(operation="run_query", project=project, contains="first", fault=Answer(503))
    faults.order(operation="auth_health", project=project, fault=Answer(502))


def _no_legacy_keys(faults: Faults, project: str) -> None:
    faults.order(
        operation="get_legacy_api_keys",
        project=project,
        fault=Answer(200, {"enabled": False}),
        times=None,
    )


def _hanging_query(faults: Faults, project: str) -> None:
    faults.order(operation="run_query", project=project, contains="first", fault=Hang(2))


async def _terminate_twice(worker: ChaosWorker) -> None:
    """Send SIGTERM twice while a query hangs: the job is released without an attempt."""
    await eventually(
        lambda: (
            not worker.is_running or any("20260101000300" in line for line in worker.read_passed())
        )
    )
    for _ in range(SIGTERMS):
        worker.send(signal.SIGTERM)


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("a database", "postgres"),
    Scenario(
        "a worker frozen past its lease",
        "postgres",
        failpoints=((Failpoint("before ledger.record_ref", "freeze"),),),
    ),
    Scenario("a project", "supabase"),
    Scenario("a project, its SQL over the pooler", "pooler"),
    Scenario("a flaky provider", "supabase", _flaky_provider),
    Scenario("keys to be made", "supabase", _no_legacy_keys, simulated={"key_kinds": "legacy"}),
    Scenario(
        "a worker stopped by SIGTERM",
        "supabase",
        _hanging_query,
        disturb=_terminate_twice,
        exit_code=1,
    ),
)
