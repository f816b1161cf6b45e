"""A `postgres` tenant end to end, beside CREATE DATABASE and the same migrations by psql."""

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
from bench.daemons import daemons
from bench.figures import median
from bench.rounds import Subject, in_turns
from bench.running import ROOT, RunFailed
from pgworker.db.postmaster import binary

if TYPE_CHECKING:
    from bench.running import Bench
    from bench.server import BenchServer

# The first ones warm caches up, and whatever a provider keeps for those to come.
WARM_UP = 2
TENANTS = 5
PATIENCE_SECONDS = 60
# Tenants, and what a worker that has left was about to make a template of.
MADE = "select datname from pg_database where datname ~ 'pgw_[0-9a-f]{32}' and not datistemplate"
SIGN_UP = "insert into clients (name, auto_provision) values ('tenant', true) returning id"
STATUS = "select provisioning_status, provisioning_error from clients where id = $1"


async def measure(bench: Bench) -> list[dict[str, Any]]:
    """Make tenants one after the other, ours and raw ones in turn."""
    return await in_turns(
        bench,
        [
            Subject(
                {"label": "postgres tenant"},
                "bench_template",
                partial(bench.template, field.BEST, prepared=0),
                partial(_run, bench.server),
            )
        ],
    )


async def _run(server: BenchServer, database: str) -> dict[str, Any]:
    dsn = server.dsn_of(database)
    ours, raw = [], []
    eye = await asyncpg.connect(dsn)
    with TemporaryDirectory(prefix="pgworker-bench-") as folder:
        async with daemons(1, dsn, Path(folder)):
            for number in range(WARM_UP + TENANTS):
                ours.append(await _ours(eye))
                raw.append(await _raw(server, f"bench_raw_{number}"))
    await eye.close()
    await server.gone(database)
    for (name,) in await server.admin.fetch(MADE):
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


async def _ours(eye: asyncpg.Connection) -> float:
    """Return the seconds from a client's insert until it shows `ready`."""
    began = time.perf_counter()
    client: UUID = await eye.fetchval(SIGN_UP)
    while True:
        asked = time.perf_counter()
        status, error = await eye.fetchrow(STATUS, client)
        if status == "ready":
            return asked - began
        if status == "failed" or asked > began + PATIENCE_SECONDS:
            raise RunFailed(f"the tenant is {status} after {asked - began:.0f} s: {error}")
        await asyncio.sleep(0.005)


async def _raw(server: BenchServer, database: str) -> float:
    """Return the seconds of CREATE DATABASE and of one psql that applies all migrations."""
    files = sorted((ROOT / "supabase" / "migrations").glob("*.sql"))
    began = time.perf_counter()
    await server.admin.execute(f"create database {database}")
    process = await asyncio.create_subprocess_exec(
        binary("psql"),
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
