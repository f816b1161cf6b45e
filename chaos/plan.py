"""The plan of a campaign: which faults when. It depends on the seed alone, so it can be repeated.

What a plan can't repeat is how processes and network interleave between two faults.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos.time_scaling import LEASE

if TYPE_CHECKING:
    from chaos.testbed import ProviderKind

ROUND_SECONDS = 20.0
FAULTS_PER_SECOND = 7.0
SLOTS = 3
CLIENTS = 40
KINDS: tuple[ProviderKind, ...] = ("postgres", "supabase", "pooler")
# About as many step boundaries as a worker of a busy round passes in its life.
PASSAGES = 150

# A create may leave late (freeze), arrive late (silence), take effect late (hang) and be listed
# late (lag). The sum must be shorter than the time in which it is looked for, with a margin for a
# slow machine.
FREEZE_LEASES = (1.2, 1.6)
SILENCE_SECONDS = (0.3, 1.4)
HANG_SECONDS = (0.5, 2.0)
LISTING_LAG_SECONDS = 0.75
LATEST_CREATE_SECONDS = (
    FREEZE_LEASES[1] * LEASE + SILENCE_SECONDS[1] + HANG_SECONDS[1] + LISTING_LAG_SECONDS
)

READS = ("get_project", "get_health", "list_api_keys", "get_pooler", "list_organization_projects")
OPERATIONS = (*READS, "create_project", "run_query", "read_table", "auth_health")


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One fault of a plan.

    Attributes:
        at: seconds from the beginning of the round.
        kind: the method of `FaultInjector` that injects it.
        arguments: of that method.
    """

    at: float
    kind: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Round:
    """One part of a campaign: a fresh platform, its clients, and the faults that they meet.

    Attributes:
        arrivals: when clients are inserted, in seconds.
        simulated: settings of the simulator.
    """

    seed: int
    number: int
    kind: ProviderKind
    arrivals: tuple[float, ...]
    simulated: Mapping[str, Any]
    faults: tuple[PlannedFault, ...]
    seconds: float = ROUND_SECONDS


def plan_round(seed: int, number: int, *, seconds: float = ROUND_SECONDS) -> Round:
    """Return the n-th round of a seed: always the same one for the same arguments."""
    rng = random.Random(f"{seed}/{number}")
    kind = KINDS[number % len(KINDS)]
    count = int(seconds * FAULTS_PER_SECOND)
    faults = [
        _plan_fault(rng, kind, at) for at in sorted(rng.uniform(0.3, seconds) for _ in range(count))
    ]
    # A crash costs every worker two seconds: one for each round.
    server = "tenants" if kind == "postgres" and rng.random() < 0.5 else "platform"
    crash = PlannedFault(rng.uniform(0.3, 0.7) * seconds, "crash_server", {"server": server})
    return Round(
        seed=seed,
        number=number,
        kind=kind,
        arrivals=tuple(sorted(rng.uniform(0, seconds * 0.8) for _ in range(CLIENTS))),
        simulated={
            "seed": rng.randrange(2**32),
            "coming_up_seconds": rng.choice((0.0, 0.3, 0.8)),
            "services_lag_seconds": rng.choice((0.0, 0.3)),
            "keys_lag_seconds": rng.choice((0.0, 0.3)),
            "pooler_lag_seconds": rng.choice((0.0, 0.3)),
            "listing_lag_seconds": rng.choice((0.0, 0.3, LISTING_LAG_SECONDS)),
        },
        faults=tuple(sorted((*faults, crash), key=lambda fault: fault.at)),
        seconds=seconds,
    )


def _plan_fault(rng: random.Random, kind: ProviderKind, at: float) -> PlannedFault:
    # Weight and arguments of each kind of fault.
    makers = {
        "kill": (6, _choose_slot),
        "arm": (10, _choose_failpoint),
        "freeze": (3, _choose_freeze),
        "cut": (8, _choose_cut),
        "silence": (2, _choose_silence),
        "slow_down": (2, _choose_silence),
        "refuse": (2, _choose_silence),
        "terminate_session": (4, _choose_session),
    }
    if kind != "postgres":
        makers |= {"fail_request": (18, _choose_answer), "refuse_token": (1, _choose_duration)}
    names = list(makers)
    name = rng.choices(names, weights=[makers[name][0] for name in names])[0]
    return PlannedFault(at, name, makers[name][1](rng, kind))


def _choose_slot(rng: random.Random, _: ProviderKind) -> dict[str, Any]:
    return {"slot": rng.randrange(SLOTS)}


def _choose_failpoint(rng: random.Random, _: ProviderKind) -> dict[str, Any]:
    return {
        "slot": rng.randrange(SLOTS),
        "action": rng.choices(("die", "lose", "freeze"), weights=(5, 4, 2))[0],
        "nth": rng.randint(1, PASSAGES),
    }


def _choose_freeze(rng: random.Random, _: ProviderKind) -> dict[str, Any]:
    return {"slot": rng.randrange(SLOTS), "leases": rng.uniform(*FREEZE_LEASES)}


def _choose_target(rng: random.Random, kind: ProviderKind) -> str:
    targets = {
        "postgres": ("platform", "tenants"),
        "supabase": ("platform", "api"),
        "pooler": ("platform", "api", "pooler"),
    }
    return rng.choice(targets[kind])


def _choose_cut(rng: random.Random, kind: ProviderKind) -> dict[str, Any]:
    return {
        "target": _choose_target(rng, kind),
        "links": rng.choice((1, 1, 1, 2, 50)),
        "which": rng.random(),
    }


def _choose_silence(rng: random.Random, kind: ProviderKind) -> dict[str, Any]:
    return {"target": _choose_target(rng, kind), "seconds": rng.uniform(*SILENCE_SECONDS)}


def _choose_session(rng: random.Random, _: ProviderKind) -> dict[str, Any]:
    return {"which": rng.random()}


def _choose_duration(rng: random.Random, _: ProviderKind) -> dict[str, Any]:
    return {"seconds": rng.uniform(0.3, 1.0)}


def _choose_answer(rng: random.Random, _: ProviderKind) -> dict[str, Any]:
    """Return a fault for the simulator; creates are chosen more often than other operations."""
    operation = rng.choice((*OPERATIONS, "create_project", "create_project"))
    fault = rng.choice(
        (
            {"kind": "answer", "status": rng.choice((500, 502, 503, 504))},
            {"kind": "answer", "status": 504, "after_effect": True},
            {"kind": "answer", "status": 429, "headers": {"X-RateLimit-Reset": "1"}},
            {"kind": "answer", "status": 544, "after_effect": rng.random() < 0.5},
            {"kind": "drop", "after_effect": rng.random() < 0.5},
            {
                "kind": "hang",
                "seconds": rng.uniform(*HANG_SECONDS),
                "after_effect": rng.random() < 0.5,
            },
            {"kind": "truncated"},
        )
    )
    return {"operation": operation, "fault": fault}
