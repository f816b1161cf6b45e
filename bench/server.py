"""The server of a bench run: durable, used by nothing else, and with measured usage."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from pgworker.db.embedded import embedded_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# As durable as by default, with enough memory and WAL that no checkpoint happens during a run.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "4GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
}
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
IS_UNUSED = "select not exists (select from pg_stat_activity where datname = $1)"
USAGE = """
select pg_current_wal_lsn() - '0/0' as wal_bytes, pg_stat_get_db_xact_commit(oid) as commits
from pg_database where datname = $1
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the server has used since its start; commits are those of one database.

    Attributes:
        cpu_seconds: of all its processes, those that have ended included.
        busy_seconds: of all processes of the machine.
    """

    cpu_seconds: float
    busy_seconds: float
    wal_bytes: int
    commits: int

    def __sub__(self, earlier: Usage) -> Usage:
        """Return what was used between the two."""
        return Usage(
            self.cpu_seconds - earlier.cpu_seconds,
            self.busy_seconds - earlier.busy_seconds,
            self.wal_bytes - earlier.wal_bytes,
            self.commits - earlier.commits,
        )


@dataclass(frozen=True, slots=True)
class BenchServer:
    """A running server; databases are created, copied and dropped by name."""

    dsn: str
    pid: int
    admin: asyncpg.Connection

    def dsn_of(self, database: str) -> str:
        """Return the superuser's DSN for a database."""
        return urlunsplit(urlsplit(self.dsn)._replace(path=f"/{database}"))

    async def create(self, database: str) -> None:
        """Create an empty database; one with this name is dropped first."""
        await self.drop(database)
        await self.admin.execute(f"create database {database}")

    async def copy(self, template: str, database: str) -> None:
        """Create the database as a copy of the template, which checkpoints before and after."""
        await self.drop(database)
        await self.wait_until_unused(template)
        await self.admin.execute(
            f"create database {database} template {template} strategy file_copy", timeout=300
        )

    async def drop(self, database: str) -> None:
        """Drop the database, with its sessions."""
        await self.admin.execute(f"drop database if exists {database} with (force)")

    async def tidy(self, database: str) -> None:
        """Vacuum, analyse and checkpoint, so that the next run starts with tidy tables."""
        connection = await asyncpg.connect(self.dsn_of(database))
        await connection.execute("vacuum (analyze, freeze)", timeout=600)
        await connection.execute("checkpoint", timeout=600)
        await connection.close()
        await self.wait_until_unused(database)

    async def wait_until_unused(self, database: str) -> None:
        """Wait until no session is left: sessions report their usage when they end."""
        async with asyncio.timeout(60):
            while not await self.admin.fetchval(IS_UNUSED, database):
                await asyncio.sleep(0.02)

    async def read_usage(self, database: str) -> Usage:
        """Return the usage so far."""
        row = await self.admin.fetchrow(USAGE, database)
        return Usage(
            cpu_seconds=sum_cpu_seconds(self.pid),
            busy_seconds=read_busy_seconds(),
            wal_bytes=int(row["wal_bytes"]),
            commits=row["commits"],
        )


@asynccontextmanager
async def bench_server(folder: Path) -> AsyncIterator[BenchServer]:
    """Run a durable embedded PostgreSQL in this folder; its files are removed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="server-", dir=folder) as data_dir:
        async with embedded_server(Path(data_dir), settings=SETTINGS) as server:
            admin = await asyncpg.connect(server.dsn)
            pid_file = await admin.fetchval("show data_directory") + "/postmaster.pid"
            pid = int(Path(pid_file).read_text().partition("\n")[0])
            try:
                yield BenchServer(server.dsn, pid, admin)
            finally:
                await admin.close()


def sum_cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, its children, and those that it has waited for."""
    ticks = sum(_read_ticks(pid)[:4])
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = _read_fields(status)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_SECOND


def _read_ticks(pid: int) -> tuple[int, int, int, int]:
    """Return utime, stime, cutime, cstime (proc(5))."""
    fields = _read_fields(Path(f"/proc/{pid}/stat"))
    return int(fields[11]), int(fields[12]), int(fields[13]), int(fields[14])


def _read_fields(status: Path) -> list[str]:
    """Return the fields after the name, which may contain spaces; the first one is the state."""
    return status.read_text().rpartition(")")[2].split()


def read_busy_seconds() -> float:
    """Return the CPU time of the machine, except idle time and waits for I/O."""
    counts = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    user, nice, system, _, _, irq, softirq, steal = counts
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND
