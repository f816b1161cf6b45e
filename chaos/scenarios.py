"""What a client goes through in the boundary sweep: enough ways to pass every step of a worker."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaos.failpoints import Order
from pgworker.simulator import Answer, Drop, Faults, Hang

if TYPE_CHECKING:
    from uuid import UUID

    from chaos.sweep import Orders
    from chaos.testbed import Kind
    from chaos.workers import GatedWorker

TOLD_TO_LEAVE = 2


async def _leave_alone(_: GatedWorker) -> None:
    """Let the worker work."""


def _no_faults(_: Faults, __: str) -> None:
    """Let the provider be well."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One way for a client to become ready.

    Attributes:
        faults: orders what the provider does wrong with the project of this name.
        treat: what happens to a worker meanwhile.
        simulated: settings of the simulator.
        orders: faults that lead into the scene, for each worker.
        arguments: of the worker's command.
        leaves_with: the exit code of a worker that was treated so.
    """

    name: str
    kind: Kind
    faults: Callable[[Faults, str], None] = _no_faults
    treat: Callable[[GatedWorker], Coroutine[Any, Any, None]] = _leave_alone
    simulated: Mapping[str, Any] = field(default_factory=dict)
    orders: Orders = ()
    arguments: tuple[str, ...] = ("run", "--drain")
    leaves_with: int = 0

    def order_faults(self, faults: Faults, client_id: UUID) -> None:
        """Order what goes wrong with this client's project."""
        self.faults(faults, f"pgworker-{client_id}")


def _moody_provider(faults: Faults, project: str) -> None:
    """Every kind of answer that isn't what was asked for, once."""
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


async def _tell_to_leave(worker: GatedWorker) -> None:
    """Send SIGTERM twice while a query hangs: its job is given back unburnt."""
    while worker.is_running and not any(  # noqa: ASYNC110
        "20260101000300" in line for line in worker.trace()
    ):
        # It writes to a file: there is no event to wait for.
        await asyncio.sleep(0.02)
    for _ in range(TOLD_TO_LEAVE):
        worker.send(signal.SIGTERM)


SCENES: tuple[Scene, ...] = (
    Scene("a database", "postgres"),
    Scene(
        "a worker that overslept", "postgres", orders=((Order("before tenants.fulfil", "freeze"),),)
    ),
    Scene("a project", "supabase"),
    Scene("a project, its SQL over the pooler", "pooler"),
    Scene("a moody provider", "supabase", _moody_provider),
    Scene("keys to be made", "supabase", _no_legacy_keys, simulated={"key_kinds": "legacy"}),
    Scene(
        "a worker told to leave", "supabase", _hanging_query, treat=_tell_to_leave, leaves_with=1
    ),
)
