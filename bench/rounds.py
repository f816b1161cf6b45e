"""Rounds: all subjects in turn, so that the machine's moods meet each of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg

from bench.running import RunFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from bench.field import Entry
    from bench.running import Bench

RUN = "bench_run"
FAILURES = (RunFailed, TimeoutError, asyncpg.PostgresError)
SHOWN = (
    *("jobs_per_second", "p50_ms", "p99_ms", "worker_cpu_us", "server_cpu_us", "wal_bytes"),
    *("late_p99_s", "connections", "worker_mib", "raw_seconds", "ratio", "others_cores"),
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured in turn with others.

    Attributes:
        told: what each of its runs says of it; `label` at least.
        template: the database that its runs are copies of; subjects may share one.
        prepare: makes the template, of that name.
        run: measures once, on the database of that name.
        copied: whether each run has a fresh copy; else each goes on where the last one ended.
    """

    told: dict[str, Any]
    template: str
    prepare: Callable[[str], Awaitable[None]]
    run: Callable[[str], Awaitable[dict[str, Any]]]
    copied: bool = True


async def in_turns(bench: Bench, subjects: Iterable[Subject]) -> list[dict[str, Any]]:
    """Prepare the templates, then measure in rounds; return all runs.

    A subject that fails is named with its last words, and the others go on.
    """
    runs: list[dict[str, Any]] = []
    failures: dict[str, Exception | None] = {}
    ready = []
    for subject in subjects:
        if subject.template not in failures:
            failures[subject.template] = await _failure_of(subject.prepare(subject.template))
        failure = failures[subject.template]
        if failure is None:
            ready.append(subject)
        else:
            _keep(runs, subject.told | {"failed": _words(subject, failure)})
    for number in bench.turns():
        for subject in list(ready):
            if subject.copied:
                await bench.server.copy(subject.template, RUN)
            try:
                result = await subject.run(RUN if subject.copied else subject.template)
            except FAILURES as error:
                _keep(runs, subject.told | {"failed": _words(subject, error)})
                ready.remove(subject)
            else:
                _keep(runs, subject.told | {"round": number} | result)
    for database in (RUN, *failures):
        await bench.server.drop(database)
    return runs


def entries(
    bench: Bench,
    taking_part: Iterable[Entry],
    prepare: Callable[[Entry, str], Awaitable[None]],
    run: Callable[[Entry, str], Awaitable[dict[str, Any]]],
) -> list[Subject]:
    """Return a subject for each entry that can take part."""
    return [
        Subject(
            described(entry),
            f"bench_template_{number}",
            partial(prepare, entry),
            partial(run, entry),
        )
        for number, entry in enumerate(filter(bench.takes, taking_part))
    ]


def described(entry: Entry) -> dict[str, Any]:
    """Return what a run says of its contender."""
    return {"label": entry.label, "name": entry.name, "kind": entry.kind}


async def _failure_of(work: Awaitable[None]) -> Exception | None:
    try:
        await work
    except FAILURES as error:
        return error
    return None


def _words(subject: Subject, error: Exception) -> str:
    return str(error) or f"{subject.told['label']}: it took too long"


def _keep(runs: list[dict[str, Any]], run: dict[str, Any]) -> None:
    """Keep a run, and show it while the bench goes on."""
    runs.append(run)
    figures = "  ".join(f"{name} {run[name]:,.4g}" for name in SHOWN if name in run)
    print(f"  {run['label']:50} {run.get('failed', figures)}", file=sys.stderr, flush=True)
