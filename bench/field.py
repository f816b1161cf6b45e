"""The contenders, each with the settings that its documentation recommends and its defaults."""

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
        settings: of the contender; empty: its defaults.
    """

    name: str
    kind: Kind
    module: str
    jobs: int
    settings: Mapping[str, int] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name with the settings."""
        settings = " ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.name} {settings or '(defaults)'}"


def make_ours(jobs: int, **settings: int) -> Entry:
    return Entry("pgworker", "ours", "bench.ours", jobs, settings)


def make_peer(name: str, jobs: int, **settings: int) -> Entry:
    return Entry(name, "peer", f"bench.peers.{name}", jobs, settings)


def make_limit(jobs: int, **settings: int) -> Entry:
    return Entry("asyncpg loop", "limit", "bench.limits", jobs, settings)


ONE_CONNECTION = make_limit(100_000, connections=1, batch_size=500)
TWO_CONNECTIONS = make_limit(100_000, connections=2, batch_size=500)
# The cost of pgworker's own statements, without a worker.
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

BEST = make_ours(50_000, concurrency=1000)

THROUGHPUT = (
    ONE_CONNECTION,
    TWO_CONNECTIONS,
    SQL_ALONE,
    BEST,
    make_ours(20_000),
    make_peer("pgqueuer", 40_000, batch_size=500, pool=10),
    make_peer("pgqueuer", 12_000),
    make_peer("awa", 25_000, workers=1024, claim_batch_size=512),
    make_peer("awa", 8_000),
    make_peer("procrastinate", 1_200, concurrency=20),
    make_peer("procrastinate", 600),
    make_peer("chancy", 4_000, concurrency=100),
    make_peer("absurd", 1_500, concurrency=100),
    make_peer("dbos", 1_500),
)

# A job takes longer with a contender that polls: fewer of them are enough.
LATENCY = (
    FLOOR,
    CLAIMING_FLOOR,
    make_ours(200),
    make_peer("pgqueuer", 200),
    make_peer("awa", 200),
    make_peer("procrastinate", 200, concurrency=20),
    make_peer("chancy", 200, concurrency=100),
    make_peer("absurd", 40, concurrency=100),
    make_peer("dbos", 10),
)

# Contenders with a bulk call.
ENQUEUE = (
    make_ours(50_000),
    make_peer("pgqueuer", 50_000),
    make_peer("awa", 50_000),
    make_peer("procrastinate", 15_000),
    make_peer("chancy", 5_000),
)

# A contender that should be here but isn't.
ABSENT = {"oban": "its package can't be installed with Python 3.11"}
