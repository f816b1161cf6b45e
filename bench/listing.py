"""How long lists take over HTTP, with a thousand clients and with a hundred thousand.

Run it with `make bench-listing`. It starts a durable embedded PostgreSQL of its own and the API on
a loopback port, fills the tables, and sends one request after the other. Times are medians in
milliseconds, from the request to the last byte of its answer.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from pgworker.api.server import serving
from pgworker.context import generate_key, open_platform
from pgworker.settings import load_settings
from pgworker.telemetry import configure_logging

if TYPE_CHECKING:
    from pgworker.db.pool import Pool

SIZES = (1_000, 100_000)
REQUESTS = 40
# Like a real platform: nearly all ready, a few failed, some in progress.
FILL = """
with client as (
    insert into clients (name, provisioning_status, created_at)
    select
        'Client ' || number,
        case number % 500 when 0 then 'failed' when 1 then 'creating_project' else 'ready' end,
        now() - number * interval '1 minute'
    from generate_series(1, $1::integer) as number
    returning id, provisioning_status
)
insert into client_provisioning_jobs (
    client_id, status, job_type, error_kind, last_error, finished_at
)
select
    id,
    case provisioning_status
        when 'ready' then 'succeeded' when 'failed' then 'failed' else 'waiting'
    end,
    case provisioning_status when 'creating_project' then 'create_project' else 'smoke_checks' end,
    case provisioning_status when 'failed' then 'permanent' end,
    case provisioning_status when 'failed' then 'smoke check rest failed for ' || id end,
    case when provisioning_status <> 'creating_project' then now() end
from client
"""
LISTS = {
    "first page": "/clients",
    "a page of 1,000": "/clients?limit=1000",
    "not modified": "/clients",
    "status=failed": "/clients?status=failed",
    "kind=permanent": "/clients?kind=permanent",
    "phase=create_project": "/clients?phase=create_project",
    "text, found": "/clients?text=client%2042",
    "text, not found": "/clients?text=nothing",
    "jobs": "/clients/provisioning/jobs",
    "overview": "/admin/provisioning",
}


async def measure_list(client: httpx.AsyncClient, path: str, headers: dict[str, str]) -> float:
    """Request a list repeatedly; return the median of the milliseconds."""
    times = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        answer = await client.get(path, headers=headers)
        times.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == (304 if headers else 200), answer.text
    return statistics.median(times)


async def measure(pool: Pool, url: str) -> dict[str, list[float]]:
    """Return the medians of each list, for each size."""
    found: dict[str, list[float]] = {name: [] for name in LISTS}
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        for size in SIZES:
            async with pool.acquire() as connection:
                await connection.execute("truncate clients cascade", timeout=600)
                await connection.execute(FILL, size, timeout=600)
                await connection.execute("vacuum analyze", timeout=600)
            for name, path in LISTS.items():
                headers = {}
                if name == "not modified":
                    headers["If-None-Match"] = (await client.get(path)).headers["ETag"]
                found[name].append(await measure_list(client, path, headers))
    return found


async def main() -> None:
    """Measure, and print a table."""
    configure_logging("json", level=40)
    with tempfile.TemporaryDirectory(prefix="pgworker-bench-") as folder:
        settings = load_settings(
            DATABASE_URL=None,
            PGWORKER_DATA_DIR=Path(folder),
            PGWORKER_ENCRYPTION_KEYS=generate_key("bench"),
            PGWORKER_API_TOKENS="",
            PGWORKER_HTTP="127.0.0.1:0",
        )
        async with open_platform(settings) as platform, serving(platform, None) as url:
            found = await measure(platform.pool, url)
    sizes = "".join(f"{size:>12,}" for size in SIZES)
    print(f"{'median ms, clients':22}{sizes}{'ratio':>8}")
    for name, medians in found.items():
        cells = "".join(f"{each:12.1f}" for each in medians)
        print(f"{name:22}{cells}{medians[-1] / medians[0]:8.2f}")


if __name__ == "__main__":
    asyncio.run(main())
