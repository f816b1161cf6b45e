"""A client's progress: pure decisions, and the statistics behind them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pgworker.models import ErrorKind, JobStatus
from pgworker.status.progress import ProgressReader, describe_progress, get_expected_ready_at
from tests.support.jobs import PHASES, JobsInTest
from tests.support.rows import client_status_row, phase_latency_row

if TYPE_CHECKING:
    from pgworker.status.rows import ClientStatusRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATENCY = [
    phase_latency_row(workflow="provision", phase=phase, p50_seconds=seconds)
    for phase, seconds in zip(PHASES, (1.0, 20.0, 300.0, 4000.0), strict=True)
]


def client(**more: Any) -> ClientStatusRow:
    return client_status_row(
        status="creating_project",
        workflow="provision",
        phase="create_project",
        phase_number=1,
        phase_count=4,
        job_status="running",
        since=NOW,
    )._replace(**more)


@pytest.mark.parametrize(
    ("phase", "seconds"), list(zip(PHASES, (4321, 4320, 4300, 4000), strict=True))
)
def test_a_client_is_expected_when_the_phases_ahead_have_taken_what_they_usually_take(
    phase: str, seconds: int
) -> None:
    expected = get_expected_ready_at(client(phase=phase), NOW, LATENCY)
    assert expected == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "more",
    [
        {"job_status": "failed"},
        {"job_status": "succeeded"},
        {"job_status": None},
        {"workflow": "another"},
        {"phase": "of_a_user"},
    ],
)
def test_a_client_without_a_live_job_or_with_unknown_phases_is_not_expected(
    more: dict[str, Any],
) -> None:
    assert get_expected_ready_at(client(**more), NOW, LATENCY) is None


def test_without_statistics_no_client_is_expected() -> None:
    unknown = [LATENCY[0]._replace(p50_seconds=None), *LATENCY[1:]]
    assert get_expected_ready_at(client(), NOW, unknown) is None
    assert get_expected_ready_at(client(phase="await_project"), NOW, unknown) is not None


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({}, "Its project is being created (phase 1 of 4)."),
        ({"status": "queued", "job_status": "queued"}, "It is queued."),
        ({"status": "ready", "job_status": "succeeded"}, "It is ready."),
        (
            {"job_status": "waiting", "error_kind": "transient"},
            (
                "Its project is being created (phase 1 of 4); an error delayed it, and it is "
                "retried automatically."
            ),
        ),
        ({"status": None, "job_status": None}, "Provisioning was never requested."),
        ({"status": "of their own"}, "Provisioning was never requested."),
    ],
)
def test_the_sentence_says_where_it_stands(more: dict[str, Any], sentence: str) -> None:
    assert describe_progress(client(**more)) == sentence


def test_a_late_client_s_sentence_says_so() -> None:
    assert describe_progress(client(), is_late=True).endswith("; it is taking longer than usual.")


@pytest.mark.parametrize("kind", ErrorKind)
async def test_every_kind_of_failure_says_what_is_needed(jobs: JobsInTest, kind: ErrorKind) -> None:
    job = await jobs.add_claimed()
    await jobs.fail(job, kind=kind, retry=False)
    progress = await ProgressReader(jobs.pool).get(job.client_id)
    assert progress.sentence == f"It failed; {await jobs.status.get_remedy(kind)}."


async def test_what_others_took_in_the_last_day_says_when_the_next_is_ready(
    jobs: JobsInTest,
) -> None:
    done = await jobs.add_claimed()
    for phase in PHASES[1:]:
        await jobs.advance(done, phase)
    await jobs.complete(done)
    job = await jobs.add_claimed()
    progress = await ProgressReader(jobs.pool).get(job.client_id)
    # They took no time to speak of.
    assert progress.expected_ready_at is not None or progress.is_late
    assert not progress.is_final


async def test_the_statistics_are_not_asked_for_each_time(jobs: JobsInTest) -> None:
    job_id = await jobs.add_with_status(JobStatus.SUCCEEDED)
    client_id = (await jobs.fetch_client(job_id))["id"]
    progress_reader = ProgressReader(jobs.pool)
    await progress_reader.get(client_id)
    await jobs.pool.execute("drop view pgworker.phase_latency cascade")
    assert (await progress_reader.get(client_id)).is_final
