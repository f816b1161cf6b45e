"""From an enqueue to the handler's first line, on an idle worker, compared with the floor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import field
from bench.figures import percentile
from bench.rounds import list_subjects, take_turns

if TYPE_CHECKING:
    from bench.field import Entry
    from bench.running import Bench

WARM_UP = 0.1


async def measure(bench: Bench) -> list[dict[str, Any]]:
    """Enqueue one job at a time, 20 ms after the start of the one before."""

    async def prepare(entry: Entry, template: str) -> None:
        await bench.create_template(entry, template, prepared=1000)

    async def run(entry: Entry, database: str) -> dict[str, Any]:
        jobs = bench.scale_count(entry.jobs)
        options = ("--jobs", str(jobs), "--warm-up", str(max(1, int(jobs * WARM_UP))))
        result = await bench.measure(entry, "latency", database, *options)
        waits = result["ms"]
        return result | {"p50_ms": percentile(waits, 50), "p99_ms": percentile(waits, 99)}

    return await take_turns(bench, list_subjects(bench, field.LATENCY, prepare, run))
