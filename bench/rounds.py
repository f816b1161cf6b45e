"""Rounds: all subjects take turns, so that changes of the machine affect each of them."""

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
        description: part of each of its results; contains at least `label`.
        template: the database that its runs are copies of; subjects may share one.
        prepare: creates the template with this name.
        run: measures once, on the database with this name.
        copied: whether each run has a fresh copy; else it continues where the last one ended.
    """

    description: dict[str, Any]
    template: str
    prepare: Callable[[str], Awaitable[None]]
    run: Callable[[str], Awaitable[dict[str, Any]]]
    copied: bool = True


async def take_turns(bench: Bench, subjects: Iterable[Subject]) -> list[dict[str, Any]]:
    """Prepare the templates, then measure in rounds; return all runs.

    A subject that fails is reported with its last line of output; the others continue.
    """
    runs: list[dict[str, Any]] = []
    failures: dict[str, Exception | None] = {}
    ready = []
    for subject in subjects:
        if subject.template not in failures:
            failures[subject.template] = await _find_failure(subject.prepare(subject.template))
        failure = failures[subject.template]
        if failure is None:
            ready.append(subject)
        else:
            _record(runs, subject.description | {"failed": _describe_failure(subject, failure)})
    for number in bench.iterate_rounds():
        for subject in list(ready):
            if subject.copied:
                await bench.server.copy(subject.template, RUN)
            try:
                result = await subject.run(RUN if subject.copied else subject.template)
            except FAILURES as error:
                _record(runs, subject.description | {"failed": _describe_failure(subject, error)})
                ready.remove(subject)
            else:
                _record(runs, subject.description | {"round": number} | result)
    for database in (RUN, *failures):
        await bench.server.drop(database)
    return runs


def list_subjects(
    bench: Bench,
    candidates: Iterable[Entry],
    prepare: Callable[[Entry, str], Awaitable[None]],
    run: Callable[[Entry, str], Awaitable[dict[str, Any]]],
) -> list[Subject]:
    """Return a subject for each entry that can be measured."""
    return [
        Subject(
            describe(entry),
            f"bench_template_{number}",
            partial(prepare, entry),
            partial(run, entry),
        )
        for number, entry in enumerate(filter(bench.has, candidates))
    ]


def describe(entry: Entry) -> dict[str, Any]:
    """Return the contender's part of its results."""
    return {"label": entry.label, "name": entry.name, "kind": entry.kind}


async def _find_failure(work: Awaitable[None]) -> Exception | None:
    try:
        await work
    except FAILURES as error:
        return error
    return None


def _describe_failure(subject: Subject, error: Exception) -> str:
    return str(error) or f"{subject.description['label']}: it took too long"


def _record(runs: list[dict[str, Any]], run: dict[str, Any]) -> None:
    """Add a result, and print it."""
    runs.append(run)
    figures = "  ".join(f"{name} {run[name]:,.4g}" for name in SHOWN if name in run)
    print(f"  {run['label']:50} {run.get('failed', figures)}", file=sys.stderr, flush=True)
