"""How many instructions the server executes for a job: `make bench-instructions`; needs valgrind.

The count of instructions, unlike a time, is the same on a busy machine as on an idle one, so that
it shows a change to a statement even if it saves one percent. Waits, for memory as well, are not
counted: `make bench` shows whether it is faster.

The statements run in PostgreSQL's single-user mode under callgrind, once a few of them and once
more: the difference is theirs alone, without the start, the plans and the first reads.
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

BATCH: Final = 500
FEW, MORE = 2, 8
JOBS: Final = BATCH * MORE
# Passes ids from one statement to the next: single-user mode has no variables or parameters.
KEEP = "select set_config('bench.ids', array_agg(id)::text, false)"
IDS = "current_setting('bench.ids')::bigint[]"


@dataclass(frozen=True, slots=True)
class Work:
    """Statements whose instructions are counted.

    Attributes:
        round: returns the statements of a round, by its number.
        jobs: in each round.
    """

    label: str
    round: Callable[[int], list[str]]
    jobs: int


def build_bare_loop(_: int) -> list[str]:
    """Return statements that claim and complete rows of a plain table."""
    claim, complete = (" ".join(statement.split()) for statement in (limits.CLAIM, limits.COMPLETE))
    return [
        f"with claimed as ({claim.replace('$1', str(BATCH))}) {KEEP} from claimed",
        complete.replace("$1::bigint[]", IDS),
    ]


def build_claim_and_complete(jobs: int) -> list[str]:
    """Return statements that claim and complete so many jobs."""
    tokens, nothing = f"array_fill(1, array[{jobs}])", f"array_fill(null::jsonb, array[{jobs}])"
    return [
        f"{KEEP} from pgworker.claim('bench', {jobs}, '30 s')",
        f"select pgworker.complete({IDS}, {tokens}, {nothing}, {nothing}, 'bench')",
    ]


def build_enqueue(number: int) -> list[str]:
    """Return the statement that enqueues a job for each client of a batch without jobs."""
    chosen = f"select id from chosen where n / {BATCH} = {number}"
    return [f"insert into client_provisioning_jobs (client_id) {chosen}"]


ALL_WORK = (
    Work("bare loop, 500 a statement", build_bare_loop, BATCH),
    Work("claim and complete, 500", lambda _: build_claim_and_complete(BATCH), BATCH),
    Work("claim and complete, 1", lambda _: build_claim_and_complete(1), 1),
    Work("enqueue, 500", build_enqueue, BATCH),
)


async def prepare(folder: Path) -> Cluster:
    """Create a cluster with clients, jobs and rows of a plain table; stop its server."""
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


def count_instructions(cluster: Cluster, statements: list[str]) -> int:
    """Return how many instructions a server executes for these statements, with start and end."""
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
    return parse_count(done.stderr)


def parse_count(output: str) -> int:
    """Return the count in the output of callgrind.

    Raises:
        ValueError: there is none.
    """
    found = re.search(r"Collected : (\d+)", output)
    if found is None:
        msg = f"callgrind printed no count: {output[-200:]}"
        raise ValueError(msg)
    return int(found[1])


def count_per_job(cluster: Cluster, work: Work) -> float:
    """Return the instructions for one job."""
    few, more = (
        count_instructions(
            cluster, [line for number in range(rounds) for line in work.round(number)]
        )
        for rounds in (FEW, MORE)
    )
    return (more - few) / (MORE - FEW) / work.jobs


async def main() -> None:
    """Count, and print a table."""
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is missing: install it (apt-get install valgrind)")
    with tempfile.TemporaryDirectory() as folder:
        cluster = await prepare(Path(folder))
        counts = {work.label: count_per_job(cluster, work) for work in ALL_WORK}
    bare = counts[ALL_WORK[0].label]
    print(f"{'instructions of the server':28}{'a job':>12}{'÷ bare loop':>13}")
    for label, instructions in counts.items():
        print(f"{label:28}{instructions:12,.0f}{instructions / bare:13.2f}")


if __name__ == "__main__":
    asyncio.run(main())
