"""The harness runs; its figures don't matter here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from bench import field
from bench.cells import degradation, latency, processes, tenants, throughput
from bench.running import Bench
from bench.server import BenchServer, bench_server

QUEUED = "select count(*) from client_provisioning_jobs where status = 'queued'"

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BenchServer]:
    async with bench_server(tmp_path_factory.mktemp("bench")) as running:
        yield running


def make_bench(server: BenchServer, *, rounds: int = 1, scale: float = 0.002) -> Bench:
    return Bench(server, peers_python=None, rounds=rounds, scale=scale)


async def test_contenders_take_turns_and_failed_ones_are_named(
    server: BenchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = field.Entry("broken", "ours", "bench.no_such_contender", 10_000)
    entries = (
        field.ONE_CONNECTION,
        broken,
        field.make_peer("pgqueuer", 10),
        field.SQL_ALONE,
        field.BEST,
    )
    monkeypatch.setattr(field, "THROUGHPUT", entries)

    runs = await throughput.measure(make_bench(server, rounds=2))

    ours = [run for run in runs if "failed" not in run]
    turn = [field.ONE_CONNECTION.label, field.SQL_ALONE.label, field.BEST.label]
    assert [(run["label"], run["round"]) for run in ours] == [
        (label, number) for number in (1, 2) for label in turn
    ]
    for run in ours:
        assert run["jobs_per_second"] > 0
        assert run["worker_mib"] > 10
        assert run["wal_bytes"] > 0
        assert 0 < run["commits"] < 10
    (failure,) = [run["failed"] for run in runs if "failed" in run]
    assert "no_such_contender" in failure


async def test_latency_is_measured_with_its_floor(server: BenchServer) -> None:
    runs = await latency.measure(make_bench(server, scale=0.05))

    assert [run["name"] for run in runs] == [
        "a bare listener",
        "a bare listener that claims",
        "pgworker",
    ]
    assert all(len(run["ms"]) == 10 and 0 < run["p50_ms"] <= run["p99_ms"] for run in runs)


async def test_worker_processes_finish_a_paused_backlog_after_it_is_resumed(
    server: BenchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "COUNTS", (2,))
    monkeypatch.setattr(processes, "ROUNDS", 1)

    (run,) = await processes.measure(make_bench(server))

    assert (run["processes"], run["jobs"]) == (2, 120)


async def test_runs_with_many_rows_take_turns_and_continue_where_the_last_one_ended(
    server: BenchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than a worker may claim at once and not start.
    counts = {
        "ROWS": 9_000,
        "WARM_UP": 1_000,
        "ROUND_JOBS": 1_500,
        "ROUND_WARM_UP": 100,
        "ROUNDS": 2,
    }
    for name, count in counts.items():
        monkeypatch.setattr(degradation, name, count)
    left = []
    measured = Bench.measure

    async def measure_and_count(
        self: Bench, entry: field.Entry, action: str, database: str, *options: str
    ) -> dict[str, Any]:
        result = await measured(self, entry, action, database, *options)
        observer = await asyncpg.connect(self.server.dsn_of(database))
        left.append((database, await observer.fetchval(QUEUED)))
        await observer.close()
        return result

    monkeypatch.setattr(Bench, "measure", measure_and_count)

    runs = await degradation.measure(make_bench(server, scale=1))

    assert [(run["beside"], run["round"]) for run in runs] == [
        (beside, number) for number in (1, 2) for beside in ("few", "queued", "waiting", "finished")
    ]
    for first, second in zip(left[:4], left[4:], strict=True):
        assert first[0] == second[0]
        assert 0 < second[1] < first[1]


async def test_tenants_are_created_and_leave_no_database_behind(
    server: BenchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenants, "WARM_UP", 0)
    monkeypatch.setattr(tenants, "TENANTS", 1)

    (run,) = await tenants.measure(make_bench(server))

    assert run["ratio"] > 0
    left = await server.admin.fetch("select datname from pg_database where not datistemplate")
    assert [row["datname"] for row in left] == ["postgres"]
