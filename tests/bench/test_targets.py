from __future__ import annotations

from bench import field
from bench.targets import Verdict, judge
from tests.bench.results import BEST_PEER, SLOW_PEER, Run, make_runs


def find_verdict(name: str, **cells: list[Run]) -> Verdict:
    (found,) = [each for each in judge(cells) if each.name == name]
    return found


def test_throughput_is_compared_with_the_best_peer_by_the_medians_of_the_rounds() -> None:
    throughput = [
        *make_runs(field.BEST, "jobs_per_second", 900, 1000, 50_000),
        *make_runs(field.make_ours(1), "jobs_per_second", 10),
        *make_runs(SLOW_PEER, "jobs_per_second", 1),
        *make_runs(BEST_PEER, "jobs_per_second", 500, 400, 600),
        *make_runs(field.ONE_CONNECTION, "jobs_per_second", 2000),
    ]

    beside_peers = find_verdict("no-op throughput ÷ best peer", throughput=throughput)
    beside_loop = find_verdict(
        "no-op throughput ÷ bare loop on one connection", throughput=throughput
    )

    assert (beside_peers.value, beside_peers.outcome) == (2.0, "met")
    assert (beside_loop.value, beside_loop.outcome) == (0.5, "met")


def test_latency_is_compared_with_the_floor_and_with_the_quickest_peer() -> None:
    latency = [
        *make_runs(field.FLOOR, "p50_ms", 1.0),
        *make_runs(field.make_ours(1), "p50_ms", 2.0),
        *make_runs(field.make_ours(1), "p99_ms", 6.5),
        *make_runs(BEST_PEER, "p50_ms", 3.0),
        *make_runs(SLOW_PEER, "p50_ms", 300.0),
    ]

    assert find_verdict("enqueue to start, median ÷ floor", latency=latency).value == 2.0
    peer = find_verdict("enqueue to start, median ÷ best peer", latency=latency)
    assert (round(peer.value or 0, 3), peer.outcome) == (0.667, "missed")
    tail = find_verdict("enqueue to start, p99 ÷ floor", latency=latency)
    assert (tail.value, tail.outcome) == (6.5, "missed")


def test_a_million_rows_may_cost_five_percent() -> None:
    def beside(rows: str, rate: float) -> Run:
        return make_runs(field.BEST, "jobs_per_second", rate)[0] | {"beside": rows}

    runs = [beside("few", 100), beside("waiting", 95), beside("finished", 94)]

    waiting = find_verdict("throughput with 1 M waiting ÷ few", degradation=runs)
    finished = find_verdict("throughput with 1 M finished ÷ few", degradation=runs)
    queued = find_verdict("throughput with 1 M queued ÷ few", degradation=runs)

    assert [waiting.outcome, finished.outcome, queued.outcome] == ["met", "missed", "not measured"]


def test_more_processes_must_not_be_slower_than_fewer() -> None:
    runs = [{"processes": n, "jobs_per_second": rate} for n, rate in ((1, 10), (2, 12), (8, 11))]

    assert find_verdict("throughput of 2 processes ÷ 1", processes=runs).outcome == "met"
    assert find_verdict("throughput of 8 processes ÷ 2", processes=runs).outcome == "missed"


def test_targets_of_failed_runs_are_not_measured() -> None:
    failed = {"label": "a", "name": "a", "kind": "ours", "failed": "it broke"}

    judged = judge({"throughput": [failed], "awaiting": [failed], "tenants": [failed]})

    assert {each.outcome for each in judged} == {"not measured"}
