"""The plan of a campaign: which faults when. Made of the seed alone, so that it can be repeated.

What the plan can't repeat is the moment's play of processes and network between two faults.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos.time_scaling import LEASE

if TYPE_CHECKING:
    from chaos.testbed import Kind

ROUND_SECONDS = 20.0
FAULTS_A_SECOND = 7.0
SLOTS = 3
CLIENTS = 40
KINDS: tuple[Kind, ...] = ("postgres", "supabase", "pooler")
# How many steps a worker of a busy round passes in its life, or so.
PASSAGES = 150

# A create may leave late (freeze), arrive late (silence), take effect late (hang) and be listed
# late (lag). All of it together stays within the time in which it is looked for, and leaves some
# for a machine that is slow.
FROZEN_LEASES = (1.2, 1.6)
SILENT = (0.3, 1.4)
HANGING = (0.5, 2.0)
LISTING_LAG = 0.75
LATEST_CREATE = FROZEN_LEASES[1] * LEASE + SILENT[1] + HANGING[1] + LISTING_LAG

READS = ("get_project", "get_health", "list_api_keys", "get_pooler", "list_organization_projects")
OPERATIONS = (*READS, "create_project", "run_query", "read_table", "auth_health")


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault to come.

    Attributes:
        at: seconds from the round's beginning.
        what: the name of the monkey that does it.
        how: its arguments.
    """

    at: float
    what: str
    how: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Round:
    """One stretch of a campaign: a fresh platform, its clients, and what they go through.

    Attributes:
        arrivals: when clients sign up, in seconds.
        simulated: settings of the simulator.
    """

    seed: int
    number: int
    kind: Kind
    arrivals: tuple[float, ...]
    simulated: Mapping[str, Any]
    faults: tuple[Planned, ...]
    seconds: float = ROUND_SECONDS


def plan_round(seed: int, number: int, *, seconds: float = ROUND_SECONDS) -> Round:
    """Return the n-th round of a seed; the same one whenever it is asked for."""
    rng = random.Random(f"{seed}/{number}")
    kind = KINDS[number % len(KINDS)]
    faults = [
        _fault(rng, kind, at)
        for at in sorted(rng.uniform(0.3, seconds) for _ in range(int(seconds * FAULTS_A_SECOND)))
    ]
    # A server that falls takes two seconds of everybody's time: once a round.
    server = "tenants" if kind == "postgres" and rng.random() < 0.5 else "platform"
    crash = Planned(rng.uniform(0.3, 0.7) * seconds, "crash_server", {"server": server})
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
            "listing_lag_seconds": rng.choice((0.0, 0.3, LISTING_LAG)),
        },
        faults=tuple(sorted((*faults, crash), key=lambda fault: fault.at)),
        seconds=seconds,
    )


def _fault(rng: random.Random, kind: Kind, at: float) -> Planned:
    makers = {
        "kill": (6, _slot),
        "order": (10, _order),
        "freeze": (3, _freeze),
        "cut": (8, _cut),
        "silence": (2, _silence),
        "slow_down": (2, _silence),
        "refuse": (2, _silence),
        "terminate_session": (4, _session),
    }
    if kind != "postgres":
        makers |= {"misanswer": (18, _misanswer), "refuse_token": (1, _for_a_while)}
    names = list(makers)
    what = rng.choices(names, weights=[makers[name][0] for name in names])[0]
    return Planned(at, what, makers[what][1](rng, kind))


def _slot(rng: random.Random, _: Kind) -> dict[str, Any]:
    return {"slot": rng.randrange(SLOTS)}


def _order(rng: random.Random, _: Kind) -> dict[str, Any]:
    return {
        "slot": rng.randrange(SLOTS),
        "act": rng.choices(("die", "lose", "freeze"), weights=(5, 4, 2))[0],
        "nth": rng.randint(1, PASSAGES),
    }


def _freeze(rng: random.Random, _: Kind) -> dict[str, Any]:
    return {"slot": rng.randrange(SLOTS), "leases": rng.uniform(*FROZEN_LEASES)}


def _wire(rng: random.Random, kind: Kind) -> str:
    wires = {
        "postgres": ("platform", "tenants"),
        "supabase": ("platform", "api"),
        "pooler": ("platform", "api", "pooler"),
    }
    return rng.choice(wires[kind])


def _cut(rng: random.Random, kind: Kind) -> dict[str, Any]:
    return {"wire": _wire(rng, kind), "links": rng.choice((1, 1, 1, 2, 50)), "which": rng.random()}


def _silence(rng: random.Random, kind: Kind) -> dict[str, Any]:
    return {"wire": _wire(rng, kind), "seconds": rng.uniform(*SILENT)}


def _session(rng: random.Random, _: Kind) -> dict[str, Any]:
    return {"which": rng.random()}


def _for_a_while(rng: random.Random, _: Kind) -> dict[str, Any]:
    return {"seconds": rng.uniform(0.3, 1.0)}


def _misanswer(rng: random.Random, _: Kind) -> dict[str, Any]:
    """Return an order for the simulator; creates get theirs more often than others."""
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
                "seconds": rng.uniform(*HANGING),
                "after_effect": rng.random() < 0.5,
            },
            {"kind": "truncated"},
        )
    )
    return {"operation": operation, "fault": fault}
