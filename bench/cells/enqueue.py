"""Bulk enqueue by one producer: ours by plain SQL with triggers, the peers' by their bulk calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import field
from bench.rounds import list_subjects, take_turns

if TYPE_CHECKING:
    from bench.field import Entry
    from bench.running import Bench


async def measure(bench: Bench) -> list[dict[str, Any]]:
    """Enqueue 1,000 jobs with each call."""

    async def prepare(entry: Entry, template: str) -> None:
        await bench.create_template(entry, template, prepared=bench.scale_count(entry.jobs))

    async def run(entry: Entry, database: str) -> dict[str, Any]:
        options = ("--jobs", str(bench.scale_count(entry.jobs)))
        return await bench.measure(entry, "enqueue", database, *options)

    return await take_turns(bench, list_subjects(bench, field.ENQUEUE, prepare, run))
