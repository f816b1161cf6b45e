"""Rounds: every contender in turn, so that the machine's moods meet all of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bench.running import RunFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from bench.field import Entry
    from bench.running import Bench

SHOWN = (
    *("jobs_per_second", "p50_ms", "p99_ms", "worker_cpu_us", "server_cpu_us", "wal_bytes"),
    *("late_p99_s", "connections", "worker_mib", "raw_seconds", "ratio", "others_cores"),
)


async def interleaved(
    bench: Bench,
    entries: Sequence[Entry],
    prepare: Callable[[Entry, str], Awaitable[None]],
    run: Callable[[Entry, str], Awaitable[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Prepare a template for each entry, then run rounds on copies of it; return all runs.

    An entry that fails is named with its last words, and the others go on.
    """
    runs: list[dict[str, Any]] = []
    templates: dict[str, tuple[Entry, str]] = {}
    for number, entry in enumerate(filter(bench.takes, entries)):
        template = f"bench_template_{number}"
        try:
            await prepare(entry, template)
        except RunFailed as error:
            runs.append(failed(entry, error))
        else:
            templates[entry.label] = (entry, template)
    for round_number in bench.turns():
        for entry, template in list(templates.values()):
            await bench.server.copy(template, "bench_run")
            try:
                result = await run(entry, "bench_run")
            except RunFailed as error:
                runs.append(failed(entry, error))
                del templates[entry.label]
            else:
                runs.append(described(entry) | {"round": round_number} | result)
                tell(runs[-1])
    await bench.server.drop("bench_run")
    for _, template in templates.values():
        await bench.server.drop(template)
    return runs


def described(entry: Entry) -> dict[str, Any]:
    """Return what a run says of its contender."""
    return {"label": entry.label, "name": entry.name, "kind": entry.kind}


def failed(entry: Entry, error: RunFailed) -> dict[str, Any]:
    """Return a run that was none."""
    tell({"label": str(error)})
    return described(entry) | {"failed": str(error)}


def tell(run: dict[str, Any]) -> None:
    """Show a run while the bench goes on."""
    figures = "  ".join(f"{name} {run[name]:,.4g}" for name in SHOWN if name in run)
    print(f"  {run['label']:50} {figures}", file=sys.stderr, flush=True)
