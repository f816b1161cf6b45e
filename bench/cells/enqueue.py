"""Bulk enqueue by one producer: ours by plain SQL with triggers on, the peers' by their calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import field
from bench.rounds import entries, in_turns

if TYPE_CHECKING:
    from bench.field import Entry
    from bench.running import Bench


async def measure(bench: Bench) -> list[dict[str, Any]]:
    """Enqueue 1,000 jobs a call."""

    async def prepare(entry: Entry, template: str) -> None:
        await bench.template(entry, template, prepared=bench.scaled(entry.jobs))

    async def run(entry: Entry, database: str) -> dict[str, Any]:
        options = ("--jobs", str(bench.scaled(entry.jobs)))
        return await bench.measure(entry, "enqueue", database, *options)

    return await in_turns(bench, entries(bench, field.ENQUEUE, prepare, run))
