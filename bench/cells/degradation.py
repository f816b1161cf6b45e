"""Throughput beside a backlog, a million that wait, and a million that are finished."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg

from bench import field
from bench.rounds import Subject, described, in_turns

if TYPE_CHECKING:
    from bench.running import Bench

ROWS = 1_000_000
# Started before anything is measured: until the pages that are changed have been changed once since
# the checkpoint, which writes them whole into the WAL. A large table has many.
WARM_UP = 80_000
# Started in a round, the first few of them to warm up. Short rounds, many, and in turns: what is
# asked for is a difference of a twentieth, and the machine's moods are larger.
STARTED = 12_000
STARTING = 2_000
ROUNDS = 4
LATER = """
insert into client_provisioning_jobs (client_id, run_at)
select id, now() + interval '1 day' from clients c
where not exists (select from client_provisioning_jobs j where j.client_id = c.id)
order by ctid
limit $1
"""


async def measure(bench: Bench) -> list[dict[str, Any]]:
    """Start the same number of jobs beside each of the four; several times for each round."""
    bench = replace(bench, rounds=bench.rounds * ROUNDS)
    labels = {beside: f"beside {bench.scaled(ROWS):,} {beside}" for beside in MADE_BY}
    labels["few"] = f"beside {_backlog(bench):,} queued"
    warm: set[str] = set()
    return await in_turns(
        bench,
        [
            Subject(
                described(field.BEST) | {"label": labels[beside], "beside": beside},
                f"bench_{beside}",
                partial(make, bench),
                partial(_run, bench, warm),
                copied=False,
            )
            for beside, make in MADE_BY.items()
        ],
    )


def _backlog(bench: Bench) -> int:
    """Return how many jobs are enqueued: those of all rounds, and of two more.

    Each run leaves some behind that it has claimed and not started, and one must never be the last.
    """
    return bench.scaled(WARM_UP) + (bench.rounds + 2) * bench.scaled(STARTED)


async def _run(bench: Bench, warm: set[str], database: str) -> dict[str, Any]:
    beside = "--beside-backlog"
    if database not in warm:
        await bench.run(field.BEST, "work", database, "--jobs", str(bench.scaled(WARM_UP)), beside)
        warm.add(database)
    options = ("--jobs", str(bench.scaled(STARTED)), "--warm-up", str(bench.scaled(STARTING)))
    return await bench.measure(field.BEST, "work", database, *options, beside)


async def _few(bench: Bench, database: str) -> None:
    backlog = _backlog(bench)
    await bench.template(field.BEST, database, prepared=backlog, enqueued=backlog)


async def _queued(bench: Bench, database: str) -> None:
    rows, backlog = bench.scaled(ROWS), _backlog(bench)
    await bench.template(field.BEST, database, prepared=rows + backlog, enqueued=rows)


async def _waiting(bench: Bench, database: str) -> None:
    rows, backlog = bench.scaled(ROWS), _backlog(bench)
    await bench.server.create(database)
    await bench.run(field.BEST, "prepare", database, "--jobs", str(rows + backlog))
    connection = await asyncpg.connect(bench.server.dsn_of(database))
    await connection.execute(LATER, rows, timeout=600)
    await connection.close()
    await bench.run(field.BEST, "enqueue", database, "--jobs", str(backlog))
    await bench.server.settle(database)


async def _finished(bench: Bench, database: str) -> None:
    """Work those really off that are queued, so that every row and event is there."""
    rows, backlog = bench.scaled(ROWS), _backlog(bench)
    await bench.server.copy("bench_queued", database)
    await bench.run(field.BEST, "work", database, "--jobs", str(rows))
    await bench.run(field.BEST, "enqueue", database, "--jobs", str(backlog))
    await bench.server.settle(database)


# In this order: the finished ones were the queued ones.
MADE_BY = {"few": _few, "queued": _queued, "waiting": _waiting, "finished": _finished}
