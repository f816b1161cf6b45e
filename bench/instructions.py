"""How many instructions the server executes for a job: `make bench-instructions`; needs valgrind.

Instructions, not seconds: the same count on a busy machine as on an idle one, so that a change to a
statement shows even if it saves one part in a hundred. What is waited for, memory included, counts
nothing: whether it is faster, `make bench` tells.

The statements run in PostgreSQL's single-user mode under callgrind, first a few and then more of
them: the difference is theirs alone, without the start, the plans and the first look at everything.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg

from bench import limits
from bench.ours import CLIENTS, ENQUEUE, FREE_CLIENTS
from pgworker.db.embedded import embedded_server
from pgworker.db.migrate import migrate
from pgworker.db.postmaster import Cluster, find_program

if TYPE_CHECKING:
    from collections.abc import Callable

CROWD: Final = 500
FEW, MORE = 2, 8
JOBS: Final = CROWD * MORE
# What a statement hands to the next one: single-user mode has no variables and binds nothing.
KEEP = "select set_config('bench.ids', array_agg(id)::text, false)"
IDS = "current_setting('bench.ids')::bigint[]"


@dataclass(frozen=True, slots=True)
class Work:
    """What is counted.

    Attributes:
        round: the statements of a round, by its number.
        jobs: of a round.
    """

    label: str
    round: Callable[[int], list[str]]
    jobs: int


def bare_loop(_: int) -> list[str]:
    """Claim and complete rows that promise nothing."""
    claim, complete = (" ".join(statement.split()) for statement in (limits.CLAIM, limits.COMPLETE))
    return [
        f"with claimed as ({claim.replace('$1', str(CROWD))}) {KEEP} from claimed",
        complete.replace("$1::bigint[]", IDS),
    ]


def claim_and_complete(jobs: int) -> list[str]:
    """Claim and complete so many jobs."""
    tokens, nothing = f"array_fill(1, array[{jobs}])", f"array_fill(null::jsonb, array[{jobs}])"
    return [
        f"{KEEP} from pgworker.claim('bench', {jobs}, '30 s')",
        f"select pgworker.complete({IDS}, {tokens}, {nothing}, {nothing}, 'bench')",
    ]


def enqueue(number: int) -> list[str]:
    """Enqueue a job for each client of a crowd that has none."""
    chosen = f"select id from chosen where n / {CROWD} = {number}"
    return [f"insert into client_provisioning_jobs (client_id) {chosen}"]


ALL_WORK = (
    Work("bare loop, 500 a statement", bare_loop, CROWD),
    Work("claim and complete, 500", lambda _: claim_and_complete(CROWD), CROWD),
    Work("claim and complete, 1", lambda _: claim_and_complete(1), 1),
    Work("enqueue, 500", enqueue, CROWD),
)


async def prepare(folder: Path) -> Cluster:
    """Make a cluster with clients, jobs, and rows that promise nothing; stop its server."""
    async with embedded_server(folder) as server:
        connection = await asyncpg.connect(server.dsn)
        await migrate(connection)
        await connection.execute(limits.SCHEMA)
        await connection.fetch(limits.INSERT, JOBS)
        await connection.execute(CLIENTS, 2 * JOBS)
        free = [row["id"] for row in await connection.fetch(FREE_CLIENTS, 2 * JOBS)]
        await connection.execute("create table chosen (n integer primary key, id uuid not null)")
        await connection.copy_records_to_table("chosen", records=enumerate(free[:JOBS]))
        await connection.fetch(ENQUEUE, free[JOBS:])
        await connection.execute("vacuum (analyze, freeze)")
        path = Path(await connection.fetchval("show data_directory"))
        await connection.close()
    return Cluster(path, folder / "postgres.log")


def count(cluster: Cluster, statements: list[str]) -> int:
    """Return what a server executes for these statements, from its start to its end."""
    with tempfile.TemporaryDirectory(dir=cluster.path.parent) as scratch:
        copy = Path(scratch) / "postgres"
        subprocess.run(["cp", "--archive", cluster.path, copy], check=True)
        done = subprocess.run(
            [
                *cluster.find_user_switch(),
                "valgrind",
                "--tool=callgrind",
                "--callgrind-out-file=/dev/null",
                find_program("postgres"),
                "--single",
                "-D",
                copy,
                "-c",
                "shared_buffers=256MB",
                "postgres",
            ],
            input="\n".join(statements),
            capture_output=True,
            text=True,
            cwd="/",
            check=True,
        )
    if "ERROR" in done.stderr:
        raise SystemExit(next(line for line in done.stderr.splitlines() if "ERROR" in line))
    return executed(done.stderr)


def executed(said: str) -> int:
    """Read the count from what callgrind has said.

    Raises:
        ValueError: it isn't there.
    """
    found = re.search(r"Collected : (\d+)", said)
    if found is None:
        msg = f"callgrind tells no count: {said[-200:]}"
        raise ValueError(msg)
    return int(found[1])


def per_job(cluster: Cluster, work: Work) -> float:
    """Return what a job costs."""
    few, more = (
        count(cluster, [line for number in range(rounds) for line in work.round(number)])
        for rounds in (FEW, MORE)
    )
    return (more - few) / (MORE - FEW) / work.jobs


async def main() -> None:
    """Count, and print a table."""
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is missing: install it (apt-get install valgrind)")
    with tempfile.TemporaryDirectory() as folder:
        cluster = await prepare(Path(folder))
        counts = {work.label: per_job(cluster, work) for work in ALL_WORK}
    bare = counts[ALL_WORK[0].label]
    print(f"{'instructions of the server':28}{'a job':>12}{'÷ bare loop':>13}")
    for label, instructions in counts.items():
        print(f"{label:28}{instructions:12,.0f}{instructions / bare:13.2f}")


if __name__ == "__main__":
    asyncio.run(main())
