"""Throughput with few rows, and with a million queued, waiting or finished jobs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg

from bench import field
from bench.rounds import Subject, describe, take_turns

if TYPE_CHECKING:
    from bench.running import Bench

ROWS = 1_000_000
# Jobs before anything is measured: the first change of a page after a checkpoint writes the whole
# page into the WAL, and a large table has many pages.
WARM_UP = 80_000
# Jobs of a round, and how many of them warm up. The rounds are short and many, and take turns: a
# difference of five percent must show, and the machine itself varies more.
ROUND_JOBS = 12_000
ROUND_WARM_UP = 2_000
ROUNDS = 4
LATER = """
insert into client_provisioning_jobs (client_id, run_at)
select id, now() + interval '1 day' from clients c
where not exists (select from client_provisioning_jobs j where j.client_id = c.id)
order by ctid
limit $1
"""


async def measure(bench: Bench) -> list[dict[str, Any]]:
    """Start the same number of jobs with each of the four; several times for each round."""
    bench = replace(bench, rounds=bench.rounds * ROUNDS)
    labels = {beside: f"with {bench.scale_count(ROWS):,} {beside}" for beside in CREATE_ROWS}
    labels["few"] = f"with {_count_backlog(bench):,} queued"
    warm: set[str] = set()
    return await take_turns(
        bench,
        [
            Subject(
                describe(field.BEST) | {"label": labels[beside], "beside": beside},
                f"bench_{beside}",
                partial(create, bench),
                partial(_run, bench, warm),
                copied=False,
            )
            for beside, create in CREATE_ROWS.items()
        ],
    )


def _count_backlog(bench: Bench) -> int:
    """Return how many jobs are enqueued: those of all rounds and of two more.

    Each run leaves some jobs claimed but not started, and the backlog must never be empty.
    """
    return bench.scale_count(WARM_UP) + (bench.rounds + 2) * bench.scale_count(ROUND_JOBS)


async def _run(bench: Bench, warm: set[str], database: str) -> dict[str, Any]:
    beside = "--beside-backlog"
    if database not in warm:
        await bench.run(
            field.BEST, "work", database, "--jobs", str(bench.scale_count(WARM_UP)), beside
        )
        warm.add(database)
    options = (
        "--jobs",
        str(bench.scale_count(ROUND_JOBS)),
        "--warm-up",
        str(bench.scale_count(ROUND_WARM_UP)),
    )
    return await bench.measure(field.BEST, "work", database, *options, beside)


async def _create_few(bench: Bench, database: str) -> None:
    backlog = _count_backlog(bench)
    await bench.create_template(field.BEST, database, prepared=backlog, enqueued=backlog)


async def _create_queued(bench: Bench, database: str) -> None:
    rows, backlog = bench.scale_count(ROWS), _count_backlog(bench)
    await bench.create_template(field.BEST, database, prepared=rows + backlog, enqueued=rows)


async def _create_waiting(bench: Bench, database: str) -> None:
    rows, backlog = bench.scale_count(ROWS), _count_backlog(bench)
    await bench.server.create(database)
    await bench.run(field.BEST, "prepare", database, "--jobs", str(rows + backlog))
    connection = await asyncpg.connect(bench.server.dsn_of(database))
    await connection.execute(LATER, rows, timeout=600)
    await connection.close()
    await bench.run(field.BEST, "enqueue", database, "--jobs", str(backlog))
    await bench.server.tidy(database)


async def _create_finished(bench: Bench, database: str) -> None:
    """Finish the queued jobs with a real worker, so that every row and event exists."""
    rows, backlog = bench.scale_count(ROWS), _count_backlog(bench)
    await bench.server.copy("bench_queued", database)
    await bench.run(field.BEST, "work", database, "--jobs", str(rows))
    await bench.run(field.BEST, "enqueue", database, "--jobs", str(backlog))
    await bench.server.tidy(database)


# In this order: the finished jobs are made of the queued ones.
CREATE_ROWS = {
    "few": _create_few,
    "queued": _create_queued,
    "waiting": _create_waiting,
    "finished": _create_finished,
}
