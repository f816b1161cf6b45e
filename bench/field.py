"""Who takes part: each with the settings that its documentation recommends, and its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["ours", "peer", "limit"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender with one set of settings.

    Attributes:
        name: of the contender.
        jobs: of a throughput run: a few seconds of work.
        settings: what the contender is told; empty are its defaults.
    """

    name: str
    kind: Kind
    module: str
    jobs: int
    settings: Mapping[str, int] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name with the settings."""
        told = " ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.name} {told or '(defaults)'}"


def ours(jobs: int, **settings: int) -> Entry:
    return Entry("pgworker", "ours", "bench.ours", jobs, settings)


def peer(name: str, jobs: int, **settings: int) -> Entry:
    return Entry(name, "peer", f"bench.peers.{name}", jobs, settings)


def limit(jobs: int, **settings: int) -> Entry:
    return Entry("asyncpg loop", "limit", "bench.limits", jobs, settings)


ONE_CONNECTION = limit(100_000, connections=1, batch_size=500)
TWO_CONNECTIONS = limit(100_000, connections=2, batch_size=500)
# What pgworker's own statements cost, whoever calls them.
SQL_ALONE = Entry(
    "pgworker's SQL alone",
    "limit",
    "bench.sql_alone",
    50_000,
    {"connections": 1, "batch_size": 500},
)
FLOOR = Entry("a bare listener", "limit", "bench.limits", 200, {"connections": 0, "batch_size": 0})
CLAIMING_FLOOR = Entry(
    "a bare listener that claims", "limit", "bench.limits", 200, {"connections": 0, "batch_size": 1}
)

BEST = ours(50_000, concurrency=1000)

THROUGHPUT = (
    ONE_CONNECTION,
    TWO_CONNECTIONS,
    SQL_ALONE,
    BEST,
    ours(20_000),
    peer("pgqueuer", 40_000, batch_size=500, pool=10),
    peer("pgqueuer", 12_000),
    peer("awa", 25_000, workers=1024, claim_batch_size=512),
    peer("awa", 8_000),
    peer("procrastinate", 1_200, concurrency=20),
    peer("procrastinate", 600),
    peer("chancy", 4_000, concurrency=100),
    peer("absurd", 1_500, concurrency=100),
    peer("dbos", 1_500),
)

# Those that poll take longer for each: fewer jobs tell as much.
LATENCY = (
    FLOOR,
    CLAIMING_FLOOR,
    ours(200),
    peer("pgqueuer", 200),
    peer("awa", 200),
    peer("procrastinate", 200, concurrency=20),
    peer("chancy", 200, concurrency=100),
    peer("absurd", 40, concurrency=100),
    peer("dbos", 10),
)

# Those that have a bulk call.
ENQUEUE = (
    ours(50_000),
    peer("pgqueuer", 50_000),
    peer("awa", 50_000),
    peer("procrastinate", 15_000),
    peer("chancy", 5_000),
)

# Who would belong here and doesn't take part.
ABSENT = {"oban": "its package can't be had for Python 3.11"}
