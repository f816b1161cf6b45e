"""The whole of provisioning on one screen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pgworker.status.overdue import Overdue, OverdueKind
from pgworker.status.overview import Urgency, get_latencies, get_notices, get_overview, summarize
from pgworker.status.progress import ProgressReader
from pgworker.status.rows import BreakerRow, LimitRow, PauseRow
from tests.support.rows import health_row, phase_latency_row
from tests.support.sample_data import write_sample_day
from tests.support.stack import running_stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgworker.status.overview import Notice
    from pgworker.status.rows import HealthRow
    from tests.support.jobs import JobsInTest

AGE = timedelta(minutes=3)


def health(**more: Any) -> HealthRow:
    return health_row(workers_alive=1)._replace(**more)


def ago(age: timedelta) -> datetime:
    return datetime.now(UTC) - age


def noticed(
    state: HealthRow | None = None,
    *,
    overdue: Sequence[Overdue] = (),
    pauses: Sequence[PauseRow] = (),
    breakers: Sequence[BreakerRow] = (),
    limits: Sequence[LimitRow] = (),
) -> tuple[Notice, ...]:
    return get_notices(state or health(), overdue, pauses, breakers, limits)


def pause(scope: str = "all") -> PauseRow:
    return PauseRow(scope, paused_at=ago(AGE), paused_by="ada")


def breaker() -> BreakerRow:
    return BreakerRow("token 1", "401", opened_at=ago(AGE), probe_at=datetime.now(UTC))


def test_nothing_is_noticed_when_all_is_well() -> None:
    assert noticed() == ()


def test_what_stops_everything_comes_first() -> None:
    overdue = Overdue(OverdueKind.DUE, 2, AGE, "Acme")
    found = noticed(
        health(workers_alive=0, queued=1),
        overdue=[overdue],
        pauses=[pause()],
        breakers=[breaker()],
        limits=[LimitRow("any", "all", seconds=30.0)],
    )
    assert [notice.urgency for notice in found] == [
        Urgency.ALARM,
        Urgency.ALARM,
        Urgency.WARNING,
        Urgency.WARNING,
        Urgency.NOTE,
    ]


def test_a_pause_says_who_made_it_and_when_and_what_it_holds() -> None:
    (everything,) = noticed(pauses=[pause()])
    (one,) = noticed(pauses=[pause("seed")])
    assert everything.what == "Everything is paused: ada paused it 3 min ago."
    assert everything.scope == "all"
    assert one.what.startswith("The workflow seed is paused")


def test_a_refused_credential_is_named_with_its_reason() -> None:
    (notice,) = noticed(breakers=[breaker()])
    assert notice.what == "The provider has refused token 1 for 3 min: 401"


def test_a_missing_worker_is_an_alarm_only_when_there_is_work() -> None:
    assert noticed(health(workers_alive=0))[0].urgency is Urgency.WARNING
    assert noticed(health(workers_alive=0, waiting=1))[0].urgency is Urgency.ALARM


@pytest.mark.parametrize("kind", [kind for kind in OverdueKind if kind is not OverdueKind.FAILED])
def test_everything_that_is_overdue_has_a_notice_with_what_to_do(kind: OverdueKind) -> None:
    (notice,) = noticed(overdue=[Overdue(kind, 2, AGE, "Acme")])
    assert "2 (the oldest for 3 min: Acme)" in notice.what
    assert notice.advice


def test_failures_are_left_to_their_groups() -> None:
    assert noticed(overdue=[Overdue(OverdueKind.FAILED, 2, AGE, "Acme")]) == ()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (health(), "All is well; nothing is in progress"),
        (health(running=1), "All is well; work is in progress"),
        (health(failed=1, running=3), "1 client needs attention"),
        (health(failed=40), "40 clients need attention"),
        (health(workers_alive=0), "There are warnings"),
        (health(workers_alive=0, queued=1), "Provisioning needs attention"),
    ],
)
def test_the_summary_is_one_sentence(state: HealthRow, words: str) -> None:
    assert summarize(state, noticed(state)) == words


def test_latencies_have_an_hour_for_each_of_the_last_24() -> None:
    unknown = phase_latency_row(ended=0)
    known = phase_latency_row(
        workflow="provision",
        phase="schema_sync",
        ended=3,
        p50_seconds=2,
        p95_seconds=4,
        max_seconds=6,
        hours_ago=[0, 23],
        hourly_p50_seconds=[1, 4],
        hourly_p95_seconds=[2, 8],
    )

    (latency,) = get_latencies([unknown, known])

    assert (latency.count, latency.p50, latency.p95, latency.longest) == (3, 2, 4, 6)
    assert latency.hours == ((4, 8), *[None] * 22, (1, 2))


async def test_the_longest_due_client_is_the_first_one_that_is_stuck(jobs: JobsInTest) -> None:
    first = await jobs.add("first")
    second = await jobs.add("second")
    await jobs.update(first, run_at=ago(timedelta(minutes=1)))
    await jobs.update(second, run_at=ago(timedelta(minutes=2)))
    assert [row.client_name for row in await jobs.status.list_stuck(limit=5)] == [
        "second",
        "first",
    ]
    assert len(await jobs.status.list_stuck(limit=1)) == 1


async def test_a_day_is_summarized(
    database: str, monkeypatch: pytest.MonkeyPatch, jobs: JobsInTest
) -> None:
    async with jobs.pool.acquire() as connection:
        await write_sample_day(connection)
    async with running_stack(database, monkeypatch, simulated=None) as stack:
        overview = await get_overview(
            stack.platform.pool, stack.platform.settings, ProgressReader(jobs.pool)
        )

    assert overview.summary == "11 clients need attention"
    assert overview.urgency is Urgency.ALARM
    assert overview.queue.health.unfinished == 8
    assert (overview.queue.is_paused, overview.queue.is_overdue) == (False, False)
    assert overview.statuses["ready"] == 36
    assert [group.jobs for group in overview.queue.failed_groups] == [7, 3, 1]
    assert [each.phase for each in overview.latency] == [
        "create_project",
        "await_project",
        "schema_sync",
        "smoke_checks",
    ]
    assert all(len(each.hours) == 24 and each.count for each in overview.latency)
    rows = await jobs.pool.fetch("select * from pgworker.phase_latency")
    by_phase = {row["phase"]: row for row in rows}
    assert all(by_phase[each.phase]["p50_seconds"] == each.p50 for each in overview.latency)
