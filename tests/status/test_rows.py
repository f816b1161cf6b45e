"""Each row has the columns of its statement, in the same order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pgworker.db.queries import find_sql_directory, parse
from pgworker.status import rows
from pgworker.status.events import EVENT_FEED_QUERIES
from pgworker.status.overdue import OVERDUE_QUERIES, OverdueRow
from pgworker.status.pages import PAGE_QUERIES
from pgworker.status.progress import PROGRESS_QUERIES
from pgworker.status.queries import STATUS_QUERIES

if TYPE_CHECKING:
    from tests.support.jobs import JobsInTest

STATEMENTS: list[tuple[str, type[NamedTuple]]] = [
    (STATUS_QUERIES.clients, rows.ClientStatusRow),
    (STATUS_QUERIES.stuck, rows.ClientStatusRow),
    (PAGE_QUERIES.clients, rows.ClientStatusRow),
    (STATUS_QUERIES.jobs, rows.JobStatusRow),
    (PAGE_QUERIES.jobs, rows.JobStatusRow),
    (STATUS_QUERIES.health, rows.HealthRow),
    (STATUS_QUERIES.workers, rows.WorkerRow),
    (STATUS_QUERIES.pauses, rows.PauseRow),
    (STATUS_QUERIES.open_breakers, rows.BreakerRow),
    (STATUS_QUERIES.exhausted_limits, rows.LimitRow),
    (STATUS_QUERIES.failed_clients, rows.FailedClientRow),
    (STATUS_QUERIES.failed_groups, rows.FailedGroupRow),
    (STATUS_QUERIES.clients_of_group, rows.GroupClientRow),
    (STATUS_QUERIES.history, rows.EventRow),
    (EVENT_FEED_QUERIES.events, rows.TransitionRow),
    (STATUS_QUERIES.steps, rows.StepRow),
    (STATUS_QUERIES.phase_seconds, rows.PhaseSecondsRow),
    (PROGRESS_QUERIES.latency, rows.PhaseLatencyRow),
    (OVERDUE_QUERIES.overdue, OverdueRow),
]


async def columns(jobs: JobsInTest, statement: str) -> tuple[str, ...]:
    async with jobs.pool.acquire() as connection:
        prepared = await connection.prepare(statement)
        return tuple(attribute.name for attribute in prepared.get_attributes())


@pytest.mark.parametrize(("statement", "shape"), STATEMENTS)
async def test_a_row_has_the_columns_of_its_statement(
    jobs: JobsInTest, statement: str, shape: type[NamedTuple]
) -> None:
    assert await columns(jobs, statement) == shape._fields


async def test_a_client_s_progress_is_its_row_and_three_columns_more(jobs: JobsInTest) -> None:
    expected = (*rows.ClientStatusRow._fields, "phase_began_at", "newest_event_id", "remedy")
    assert await columns(jobs, PROGRESS_QUERIES.client) == expected


def test_no_row_is_left_out_here() -> None:
    defined = {each for each in vars(rows).values() if isinstance(each, type)} - {NamedTuple}
    assert {each for each in defined if hasattr(each, "_fields")} <= {
        shape for _, shape in STATEMENTS
    }


def test_each_statement_that_others_include_is_included() -> None:
    folder = find_sql_directory() / "queries"
    text = "".join(path.read_text() for path in folder.glob("*.sql"))
    included = set(re.findall(r"\binclude\.(\w+)", text))
    assert included == parse((folder / "rows.sql").read_text()).keys()
