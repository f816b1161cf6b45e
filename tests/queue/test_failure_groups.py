"""Failed jobs, grouped by what is the same error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgworker.models import ErrorKind, Failure, JobStatus
from tests.support.jobs import BACKOFF, BACKOFF_CAP

if TYPE_CHECKING:
    from tests.support.jobs import JobsInTest

REF, OTHER_REF = "abcdefghijklmnopqrst", "zyxwvutsrqponmlkjihg"
ID, OTHER_ID = "0b5c8f2e-9d1a-4c3b-8e7f-1a2b3c4d5e6f", "9e8d7c6b-5a4f-4e3d-9c2b-1a0f9e8d7c6b"
HEX, OTHER_HEX = ID.replace("-", ""), OTHER_ID.replace("-", "")

SAME = {
    "tries": (
        "gave up after 10 attempts: no answer from the Management API",
        "gave up after 3 attempts: no answer from the Management API",
        "no answer from the Management API",
    ),
    "uuids": (f"client {ID} has no key", f"client {OTHER_ID} has no key"),
    "refs": (
        f"project {REF} is not up after 1200 s (https://{REF}.example.com said no)",
        f"project {OTHER_REF} is not up after 1203 s (https://{OTHER_REF}.example.com said no)",
    ),
    "names of tenants": (
        f"database tenant_{HEX} is there already",
        f"database tenant_{OTHER_HEX} is there already",
    ),
    "ids of requests": ("failed (ray 8f2a9b7c6d5e4f3a)", "failed (ray 0123456789abcdef)"),
    "addresses": ("10.0.0.7:5432 refuses us", "192.168.10.77:6543 refuses us"),
    "times": (
        "created at 2026-11-26T10:20:30.5Z, too early",
        "created at 2026-01-02 01:02:03+00:00, too early",
    ),
    "numbers": ("3 of 17 rows, after 2.5 s", "1 of 2 rows, after 10,000.75 s"),
}
DIFFERENT = {
    "statuses": ("the API answered 402 to us: no", "the API answered 400 to us: no"),
    "SQLSTATEs": ("it failed [22012]", "it failed [23505]"),
    "mixed SQLSTATEs": ("it failed [42P01]", "it failed [42P07]"),
    "files": (
        "20260101000100_triggers.sql:3: no such table",
        "20260101000200_security.sql:3: no such table",
    ),
    "lines": ("20260101000100_triggers.sql:3: no", "20260101000100_triggers.sql:4: no"),
    "checks": ("smoke/a.sql: false", "smoke/b.sql: false"),
    "words": ('column "email" is missing', 'column "name" is missing'),
}


@pytest.mark.parametrize("texts", SAME.values(), ids=SAME)
async def test_details_of_a_client_make_no_other_group(
    jobs: JobsInTest, texts: tuple[str, ...]
) -> None:
    assert len({await signature(jobs, text) for text in texts}) == 1


@pytest.mark.parametrize("texts", DIFFERENT.values(), ids=DIFFERENT)
async def test_details_of_an_error_make_another_group(
    jobs: JobsInTest, texts: tuple[str, ...]
) -> None:
    assert len({await signature(jobs, text) for text in texts}) == len(texts)


async def test_a_signature_reads_like_its_message(jobs: JobsInTest) -> None:
    message = f"gave up after 10 attempts: project {REF} is not up after 1200.5 s"
    assert await signature(jobs, message) == "project ... is not up after ... s"


async def test_the_same_error_is_one_group_however_many_clients_have_it(jobs: JobsInTest) -> None:
    for number in range(3):
        await failed(jobs, f"client {number}", f"column {number} is missing")
    await failed(jobs, "another", "row level security is off")

    large, small = await jobs.status.list_failed_groups()

    assert (large.jobs, small.jobs) == (3, 1)
    assert large.signature == "column ... is missing"
    assert large.sample_error == "column 2 is missing"
    assert large.sample_client_names == ["client 2", "client 1", "client 0"]
    assert small.signature == small.sample_error == "row level security is off"


async def test_the_same_words_of_another_kind_or_in_another_phase_are_another_group(
    jobs: JobsInTest,
) -> None:
    await failed(jobs, "a", "it failed")
    await failed(jobs, "b", "it failed", kind=ErrorKind.QUOTA)
    await jobs.update(await failed(jobs, "c", "it failed"), job_type="schema_sync")

    assert len(await jobs.status.list_failed_groups()) == 3


async def test_a_job_that_failed_without_a_message_is_in_a_group_too(jobs: JobsInTest) -> None:
    await jobs.update(await failed(jobs, "a", "x"), last_error=None, error_kind=None)

    (group,) = await jobs.status.list_failed_groups()

    assert (group.jobs, group.signature) == (1, None)
    assert await jobs.commands.retry_group(group.group_id) == 1


async def test_one_call_retries_a_group_and_nothing_else(jobs: JobsInTest) -> None:
    group = [await failed(jobs, f"client {n}", f"column {n} is missing") for n in range(3)]
    other = await failed(jobs, "another", "row level security is off")
    group_id = (await jobs.status.list_failed_groups())[0].group_id

    assert await jobs.commands.retry_group(group_id) == 3

    assert {await jobs.fetch_status(job) for job in group} == {JobStatus.QUEUED}
    assert await jobs.fetch_status(other) == JobStatus.FAILED
    assert await jobs.commands.retry_group(group_id) == 0


async def test_clients_of_a_group_are_found_by_its_id(jobs: JobsInTest) -> None:
    await failed(jobs, "a", "column 1 is missing")
    await failed(jobs, "b", "row level security is off")
    groups = await jobs.status.list_failed_groups()

    found = [
        [row.client_name for row in await jobs.status.list_clients_of_group(group.group_id)]
        for group in groups
    ]

    assert sorted(found) == [["a"], ["b"]]


async def failed(
    jobs: JobsInTest, name: str, error: str, *, kind: ErrorKind = ErrorKind.PERMANENT
) -> int:
    """Return a job that failed by that error."""
    job_id = await jobs.add(name)
    job = await jobs.claim_one()
    assert job.id == job_id
    await jobs.as_worker("worker").fail(
        job, Failure(kind, error, retry=False), backoff=BACKOFF, backoff_cap=BACKOFF_CAP
    )
    return job_id


async def signature(jobs: JobsInTest, error: str) -> str:
    found: str = await jobs.pool.fetchval("select pgworker.error_signature($1)", error)
    return found
