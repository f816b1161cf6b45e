"""No-op jobs of one worker process, compared with the limits and the peers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import field
from bench.rounds import list_subjects, take_turns

if TYPE_CHECKING:
    from bench.field import Entry
    from bench.running import Bench

WARM_UP = 0.1


async def measure(bench: Bench) -> list[dict[str, Any]]:
    """Run the same backlog in each round, with every contender in turn."""

    async def prepare(entry: Entry, template: str) -> None:
        jobs = bench.scale_count(entry.jobs)
        await bench.create_template(entry, template, prepared=jobs, enqueued=jobs)

    async def run(entry: Entry, database: str) -> dict[str, Any]:
        jobs = bench.scale_count(entry.jobs)
        options = ("--jobs", str(jobs), "--warm-up", str(max(1, int(jobs * WARM_UP))))
        return await bench.measure(entry, "work", database, *options)

    return await take_turns(bench, list_subjects(bench, field.THROUGHPUT, prepare, run))
