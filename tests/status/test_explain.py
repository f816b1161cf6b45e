"""A client's state in one sentence, and what can be pressed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgworker.status.explain import advise, describe_state, get_actions
from tests.support.rows import client_status_row

if TYPE_CHECKING:
    from pgworker.status.rows import ClientStatusRow
    from tests.support.jobs import JobsInTest


def client(job_status: str | None, **more: Any) -> ClientStatusRow:
    usual = {"status": "schema_syncing", "phase": "schema_sync", "phase_number": 3}
    return client_status_row(job_status=job_status, phase_count=4, **usual | more)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            client("failed"),
            ("Failed in schema_sync (phase 3 of 4): needs a person. What was done so far is kept."),
        ),
        (client("running"), "In progress: a worker is running schema_sync (phase 3 of 4)."),
        (
            client("running", blocked_because="worker a fell silent"),
            "Stalled in schema_sync (phase 3 of 4): worker a fell silent.",
        ),
        (
            client("queued", blocked_because="waiting for a free worker"),
            "Queued for schema_sync (phase 3 of 4): waiting for a free worker.",
        ),
        (client("waiting"), "Waiting in schema_sync (phase 3 of 4): the next try."),
        (
            client("waiting", phase="seed_data", phase_number=None, blocked_because="the project"),
            "Waiting in seed_data: the project.",
        ),
        (
            client("cancelled"),
            "Cancelled in schema_sync (phase 3 of 4). What exists at the provider stays there.",
        ),
        (client("succeeded", status="ready"), "Ready: provisioned and checked."),
        (client("succeeded", status="deprovisioned"), "Done: it is deprovisioned."),
        (client(None, status="ready", phase=None, phase_number=None), "Ready."),
        (
            client(None, status="not_provisioned", phase=None, phase_number=None),
            "Provisioning was never requested for this client.",
        ),
    ],
)
def test_a_state_is_one_sentence(row: ClientStatusRow, words: str) -> None:
    assert describe_state(row) == words


@pytest.mark.parametrize(
    ("row", "offered"),
    [
        (client("failed"), [("retry", False), ("cancel", True)]),
        # It may make a project, which costs money.
        (client("failed", may_cost_money=True), [("retry", True), ("cancel", True)]),
        (client("cancelled"), [("retry", True)]),
        (client("queued"), [("cancel", True)]),
        (client("waiting"), [("cancel", True)]),
        (client("running"), [("cancel", True)]),
        (client("succeeded", status="ready"), []),
        (client(None, status="not_provisioned"), []),
    ],
)
def test_what_costs_money_or_cannot_be_undone_asks_first(
    row: ClientStatusRow, offered: list[tuple[str, bool]]
) -> None:
    assert [(action.name, action.asks_first) for action in get_actions(row)] == offered
    assert all(action.consequence.endswith(".") for action in get_actions(row))


@pytest.mark.parametrize("status", ["queued", "running", "waiting", "failed", "cancelled"])
async def test_what_is_offered_is_what_the_queue_takes(jobs: JobsInTest, status: str) -> None:
    job_id = await jobs.add_with_status(status)
    client_id = (await jobs.fetch_row(job_id))["client_id"]
    row = await jobs.status.get_client_status(client_id)
    for action in get_actions(row):
        if action.name == "retry":
            await jobs.commands.retry(client_id)
        else:
            assert await jobs.commands.cancel(client_id) == 1


@pytest.mark.parametrize(("phase", "asks"), [("create_project", True), ("schema_sync", False)])
async def test_a_retry_asks_first_in_a_phase_that_may_cost_money(
    jobs: JobsInTest, phase: str, *, asks: bool
) -> None:
    job_id = await jobs.add_with_status("failed")
    await jobs.update(job_id, job_type=phase)
    client = await jobs.status.get_client_status((await jobs.fetch_row(job_id))["client_id"])
    (group,) = await jobs.status.list_failed_groups()
    assert [get_actions(client)[0].asks_first, group.may_cost_money] == [asks, asks]


@pytest.mark.parametrize(
    ("blocked_code", "advice"),
    [
        ("no_worker", "start a worker: pgworker run"),
        ("paused", "end the pause: pgworker resume"),
        (
            "breaker_open",
            "replace the credential that the provider refuses: pgworker doctor names it",
        ),
        ("client_locked", "nothing: it continues by itself"),
        ("waiting", "nothing: it continues by itself"),
        ("no_free_worker", "nothing: it continues by itself"),
        ("lease_expired", "nothing: it continues by itself"),
    ],
)
def test_advice_follows_from_what_blocks_the_client(blocked_code: str, advice: str) -> None:
    # The sentence may quote the provider, and decides nothing.
    because = "the project to come up (project RESUMING, paused by a person)"
    row = client(
        "waiting",
        client_id="6f8f",
        error_kind=None,
        blocked_code=blocked_code,
        blocked_because=because,
    )
    assert advise(row, None)[0] == advice


async def test_advice_knows_the_codes_of_the_view(jobs: JobsInTest) -> None:
    job_id = await jobs.add_with_status("queued")
    client_id = (await jobs.fetch_row(job_id))["client_id"]

    async def advice() -> str:
        row = await jobs.status.get_client_status(client_id)
        return advise(row, None)[0]

    assert await advice() == "start a worker: pgworker run"
    await jobs.commands.pause("all")
    assert await advice() == "end the pause: pgworker resume"
