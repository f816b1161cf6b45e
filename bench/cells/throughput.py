"""No-op jobs of one worker process, beside the limits and the peers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import field
from bench.rounds import entries, in_turns

if TYPE_CHECKING:
    from bench.field import Entry
    from bench.running import Bench

WARM_UP = 0.1


async def measure(bench: Bench) -> list[dict[str, Any]]:
    """Work the same backlog off in each round, every contender in turn."""

    async def prepare(entry: Entry, template: str) -> None:
        jobs = bench.scaled(entry.jobs)
        await bench.template(entry, template, prepared=jobs, enqueued=jobs)

    async def run(entry: Entry, database: str) -> dict[str, Any]:
        jobs = bench.scaled(entry.jobs)
        options = ("--jobs", str(jobs), "--warm-up", str(max(1, int(jobs * WARM_UP))))
        return await bench.measure(entry, "work", database, *options)

    return await in_turns(bench, entries(bench, field.THROUGHPUT, prepare, run))
