"""A client's events as entries of a timeline."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pgworker.status.timeline import EntryKind, build_timeline
from tests.support.rows import event_row

if TYPE_CHECKING:
    from pgworker.status.rows import EventRow
    from tests.support.jobs import JobsInTest

BEGIN = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def event(name: str, *, at: float = 0, phase: str = "await_project", **more: Any) -> EventRow:
    begin = {"at": BEGIN + timedelta(seconds=at), "from_phase": phase, "to_phase": phase}
    return event_row(event=name, actor="worker", **begin | more)


def wait(at: float, what: str = "the project") -> EventRow:
    return event("snoozed", at=at, detail={"waiting_for": what})


@pytest.mark.parametrize(
    ("row", "title", "kind"),
    [
        (event("enqueued"), "Queued", EntryKind.NOTE),
        (event("claimed"), "Claimed by a worker", EntryKind.WORK),
        (event("rescued"), "Taken over from a worker that stopped responding", EntryKind.WORK),
        (
            event("advanced", to_phase="schema_sync"),
            "await_project is done, next is schema_sync",
            EntryKind.GOOD,
        ),
        (wait(0, "a rate limit"), "Waiting: a rate limit", EntryKind.WAIT),
        (event("snoozed"), "Waiting: the next try", EntryKind.WAIT),
        (event("backed_off", detail={"attempts": 3}), "Attempt 3 failed", EntryKind.BAD),
        (event("failed"), "Failed: needs a person", EntryKind.BAD),
        (event("succeeded"), "await_project is done: ready", EntryKind.GOOD),
        (event("released"), "Released by a worker that shut down", EntryKind.NOTE),
        (event("retried"), "Retried by a person", EntryKind.NOTE),
        (event("cancelled"), "Cancelled", EntryKind.NOTE),
        (event("cancelled", detail={"superseded_by": 7}), "Replaced by a new job", EntryKind.NOTE),
        (event("some_day_new"), "Some day new", EntryKind.NOTE),
    ],
)
def test_every_event_has_words_of_its_own(row: EventRow, title: str, kind: EntryKind) -> None:
    (entry,) = build_timeline([row])
    assert (entry.title, entry.kind) == (title, kind)


def test_an_entry_lasts_until_the_next_one_and_the_last_one_still_does() -> None:
    first, second = build_timeline([event("enqueued"), event("claimed", at=2.5)])
    assert first.lasted == timedelta(seconds=2.5)
    assert second.lasted is None


def test_polls_that_found_nothing_new_are_one_wait() -> None:
    claim = event("claimed")
    timeline = build_timeline(
        [claim, wait(1), event("claimed", at=6), wait(7), event("claimed", at=12), wait(13)]
    )
    assert [(entry.title, entry.times) for entry in timeline] == [
        ("Claimed by a worker", 1),
        ("Waiting: the project", 3),
    ]
    assert timeline[1].at == BEGIN + timedelta(seconds=1)


def test_a_wait_for_something_else_is_an_entry_of_its_own() -> None:
    timeline = build_timeline([wait(0), event("claimed", at=5), wait(6, "the data api")])
    assert [entry.title for entry in timeline] == [
        "Waiting: the project",
        "Claimed by a worker",
        "Waiting: the data api",
    ]


def test_a_wait_that_an_error_caused_is_never_folded_away() -> None:
    trouble = wait(6)._replace(error="throttled", error_kind="throttled")
    timeline = build_timeline(
        [wait(0), event("claimed", at=5), trouble, event("claimed", at=9), wait(10)]
    )
    assert [entry.error for entry in timeline] == [None, None, "throttled", None, None]


def test_a_phase_of_another_name_begins_a_new_wait() -> None:
    other = wait(6)._replace(from_phase="schema_sync", to_phase="schema_sync")
    assert len(build_timeline([wait(0), event("claimed", at=5), other])) == 3


def test_nothing_has_happened_to_a_client_without_events() -> None:
    assert build_timeline([]) == ()


async def test_it_is_built_from_what_the_queue_has_written(jobs: JobsInTest) -> None:
    job = await jobs.add_claimed()
    await jobs.snooze(job)
    await jobs.let_wait_end(job.id)
    again = await jobs.claim_one()
    await jobs.fail(again, retry=True)

    timeline = build_timeline(await jobs.status.list_events(job.client_id, limit=100))

    assert [entry.title for entry in timeline] == [
        "Queued",
        "Claimed by a worker",
        "Waiting: the project",
        "Claimed by a worker",
        "Attempt 1 failed",
    ]
    assert timeline[-1].error == "it did not work"
    assert timeline[-1].error_kind == "transient"
