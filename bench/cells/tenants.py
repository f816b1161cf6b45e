"""A `postgres` tenant end to end, compared with CREATE DATABASE and the same migrations by psql."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from bench import field
from bench.daemons import running_daemons
from bench.figures import median
from bench.rounds import Subject, take_turns
from bench.running import ROOT, RunFailed
from pgworker.db.postmaster import find_program

if TYPE_CHECKING:
    from bench.running import Bench
    from bench.server import BenchServer

# The first ones fill caches, and make the provider create a template.
WARM_UP = 2
TENANTS = 5
TIMEOUT_SECONDS = 60
# Tenants, and templates that a worker had not finished when it ended.
CREATED = "select datname from pg_database where datname ~ 'pgw_[0-9a-f]{32}' and not datistemplate"
HAS_TEMPLATE = (
    "select exists (select from pg_database where datname ~ '^template_pgw_[0-9a-f]{32}$')"
)
INSERT_CLIENT = "insert into clients (name, auto_provision) values ('tenant', true) returning id"
STATUS = "select provisioning_status, provisioning_error from clients where id = $1"
# A trigger notifies when a client is ready or failed: polling would add half of its interval, and
# load. The notification is part of the measured time.
NOTIFY = """
create function bench_notify() returns trigger language plpgsql as
$$begin perform pg_notify('bench_tenant', new.id::text); return null; end$$;
create trigger bench_notify after update on clients for each row
when (old.provisioning_status <> new.provisioning_status
    and new.provisioning_status in ('ready', 'failed'))
execute function bench_notify();
"""


async def measure(bench: Bench) -> list[dict[str, Any]]:
    """Create tenants one after the other, ours and raw ones in turn."""
    return await take_turns(
        bench,
        [
            Subject(
                {"label": "postgres tenant"},
                "bench_template",
                partial(bench.create_template, field.BEST, prepared=0),
                partial(_run, bench.server),
            )
        ],
    )


async def _run(server: BenchServer, database: str) -> dict[str, Any]:
    dsn = server.dsn_of(database)
    ours, raw = [], []
    observer = await Observer.open(dsn)
    with TemporaryDirectory(prefix="pgworker-bench-") as folder:
        async with running_daemons(1, dsn, Path(folder)):
            for number in range(WARM_UP + TENANTS):
                if number == WARM_UP > 0:
                    await _wait_for_template(server)
                ours.append(await observer.measure_tenant())
                raw.append(await _measure_raw(server, f"bench_raw_{number}"))
    await observer.close()
    await server.wait_until_unused(database)
    for (name,) in await server.admin.fetch(CREATED):
        await server.drop(name)
        await server.admin.execute(f"drop role if exists {name}")
    seconds, raw_seconds = median(ours[WARM_UP:]), median(raw[WARM_UP:])
    return {
        "seconds": seconds,
        "raw_seconds": raw_seconds,
        "ratio": seconds / raw_seconds,
        "first_seconds": ours[0],
        "all_seconds": ours,
        "all_raw_seconds": raw,
    }


async def _wait_for_template(server: BenchServer) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not await server.admin.fetchval(HAS_TEMPLATE):
            await asyncio.sleep(0.02)


class Observer:
    """Inserts clients, and is notified when they are ready."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._notified: asyncio.Queue[tuple[UUID, float]] = asyncio.Queue()

    @classmethod
    async def open(cls, dsn: str) -> Observer:
        connection = await asyncpg.connect(dsn)
        observer = cls(connection)
        await connection.execute(NOTIFY)
        await connection.add_listener("bench_tenant", observer._on_notification)
        return observer

    async def close(self) -> None:
        await self._connection.close()

    async def measure_tenant(self) -> float:
        """Return the seconds from a client's insert until it shows `ready`."""
        began = time.perf_counter()
        client: UUID = await self._connection.fetchval(INSERT_CLIENT)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            ended_client, ended = await self._notified.get()
        assert ended_client == client, "another client was notified"
        status, error = await self._connection.fetchrow(STATUS, client)
        if status != "ready":
            raise RunFailed(f"the tenant is {status} after {ended - began:.0f} s: {error}")
        return ended - began

    def _on_notification(self, _: object, __: int, ___: str, client: str) -> None:
        self._notified.put_nowait((UUID(client), time.perf_counter()))


async def _measure_raw(server: BenchServer, database: str) -> float:
    """Return the seconds of CREATE DATABASE and of one psql that applies all migrations."""
    files = sorted((ROOT / "supabase" / "migrations").glob("*.sql"))
    began = time.perf_counter()
    await server.admin.execute(f"create database {database}")
    process = await asyncio.create_subprocess_exec(
        find_program("psql"),
        *("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", server.dsn_of(database)),
        *(f"--file={file}" for file in files),
        env=os.environ | {"PGOPTIONS": "-c client_min_messages=warning"},
        stdout=asyncio.subprocess.DEVNULL,
    )
    code = await process.wait()
    seconds = time.perf_counter() - began
    await server.drop(database)
    if code != 0:
        raise RunFailed("psql could not apply the migrations")
    return seconds
