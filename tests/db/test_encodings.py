"""Platform databases that don't store Unicode: all works there, and no message fails a job."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pgworker.db.encoding import holds, replace_unstorable
from pgworker.db.migrate import migrate, read_own_files, read_state
from pgworker.db.pool import connect
from pgworker.db.queries import find_sql_directory
from pgworker.errors import UnknownClient, UnstorableText
from pgworker.models import (
    Advance,
    ClientPatch,
    Complete,
    Done,
    ErrorKind,
    Failure,
    JobStatus,
    Snooze,
)
from pgworker.status.commands import ClientRequest
from tests.support.jobs import BACKOFF, BACKOFF_CAP, JobsInTest, jobs_in
from tests.support.server import RunServer, create_database, drop_database
from tests.support.stack import running_stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ENCODINGS = ("LATIN1", "LATIN9", "SQL_ASCII", "EUC_JP", "WIN1252", "EUC_KR")
# Ours, other people's, and characters of which each encoding lacks some.
MESSAGE = "cut … – → “Évora” Łódź 東京 가갂 ☃ 💥 \ufffd ¢"
SHOWN = {
    "LATIN1": "cut ... - -> ?Évora? ?ód? ?? ?? ? ? ? ¢",
    "SQL_ASCII": MESSAGE,
}

PHASE = """
from pgworker.workflow import (
    AwaitProject, ClientStatus, CreateProject, Done, Permanent, Workflow
)


class Fails:
    name = "fails"
    client_status = ClientStatus.SCHEMA_SYNCING

    async def run(self, ctx):
        if ctx.client.name == "Évora":
            raise Permanent("…→☃" * 3000)
        return Done(checkpoint={"…": "→☃"})


workflow = Workflow("provision", (CreateProject(), AwaitProject(), Fails()))
"""


@pytest.fixture(params=ENCODINGS)
async def odd_database(
    request: pytest.FixtureRequest, server: RunServer
) -> AsyncIterator[tuple[str, str]]:
    """The encoding and the superuser's DSN of an empty database."""
    name = await create_database(server, encoding=request.param)
    yield request.param, server.dsn_of(name)
    await drop_database(server, name)


@pytest.fixture
async def odd_jobs(odd_database: tuple[str, str]) -> AsyncIterator[tuple[str, JobsInTest]]:
    """The encoding and the queue of a migrated database."""
    encoding, dsn = odd_database
    connection = await connect(dsn)
    await migrate(connection)
    await connection.close()
    async with jobs_in(dsn) as jobs:
        yield encoding, jobs


def expected(encoding: str, text: str = MESSAGE) -> str:
    return replace_unstorable(text, encoding)


# -- what we send -----------------------------------------------------------------------------


def test_whatever_is_sent_to_the_platforms_database_is_ascii() -> None:
    """Comments too: the server converts the whole text of a statement."""
    found = [
        f"{path.relative_to(find_sql_directory())}:{number}: {line.strip()}"
        for path in sorted(Path(find_sql_directory()).rglob("*.sql"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if not line.isascii()
    ]

    assert found == []


async def test_an_odd_database_gets_the_whole_schema(odd_database: tuple[str, str]) -> None:
    _, dsn = odd_database
    connection = await connect(dsn)
    try:
        assert await migrate(connection) == tuple(file.name for file in read_own_files())
        assert (await read_state(connection)).is_current
    finally:
        await connection.close()


# -- what becomes of messages -----------------------------------------------------------------


def test_latin1_keeps_what_it_has_and_shows_the_rest_as_question_marks() -> None:
    assert expected("LATIN1") == SHOWN["LATIN1"]
    assert expected("SQL_ASCII") == expected("UTF8") == MESSAGE
    # One that Python doesn't know: ASCII is in all of them.
    assert expected("EUC_TW", "東京 Tokyo") == "?? Tokyo"


async def test_the_database_holds_just_what_we_think_it_holds(
    odd_database: tuple[str, str],
) -> None:
    encoding, dsn = odd_database
    connection = await connect(dsn)
    every = [chr(n) for n in range(1, 0x10000) if not 0xD800 <= n < 0xE000]
    try:
        ours = "".join(each for each in every if holds(each, encoding))
        # One that the server refuses would fail the statement.
        assert await connection.fetchval("select $1::text", ours) == ours
    finally:
        await connection.close()
    if encoding.startswith(("LATIN", "WIN")):
        assert 240 < len(ours) < 256


async def test_no_message_of_ours_fails_a_job(odd_jobs: tuple[str, JobsInTest]) -> None:
    encoding, jobs = odd_jobs
    queue = jobs.as_worker("worker")
    shown = expected(encoding)

    job = await jobs.add_claimed()
    patch = ClientPatch(project_url=MESSAGE, provisioning={MESSAGE: MESSAGE})
    step = Advance("await_project", Done(patch, {"seen": [MESSAGE]}))
    assert await queue.advance([(job, step)]) == set()
    client = await jobs.fetch_client(job.id)
    assert client["project_url"] == shown
    assert client["additional_settings"] == {"provisioning": {shown: shown}}

    wait = Snooze(
        timedelta(minutes=1),
        reason=MESSAGE,
        checkpoint={MESSAGE: MESSAGE},
        error_kind=ErrorKind.THROTTLED,
        error=MESSAGE,
    )
    assert await queue.snooze([(job, wait)]) == set()
    row = await jobs.fetch_row(job.id)
    assert (row["waiting_for"], row["last_error"]) == (shown, shown)
    assert row["checkpoint"] == {"seen": [shown], shown: shown}

    await jobs.let_wait_end(job.id)
    job = await jobs.claim_one()
    failure = Failure(ErrorKind.PERMANENT, MESSAGE, retry=False)
    await queue.fail(job, failure, backoff=BACKOFF, backoff_cap=BACKOFF_CAP)
    assert (await jobs.fetch_row(job.id))["last_error"] == shown
    assert (await jobs.fetch_events(job.id))[-1]["error"] == shown
    assert (await jobs.status.list_failed_groups(limit=1))[0].sample_error == shown

    await jobs.commands.retry(job.client_id, by=MESSAGE)
    job = await jobs.claim_one()
    assert await queue.complete([(job, Complete(Done()))]) == set()
    assert await jobs.fetch_status(job.id) is JobStatus.SUCCEEDED


async def test_one_message_that_cannot_be_stored_fails_none_of_its_batch(
    odd_jobs: tuple[str, JobsInTest],
) -> None:
    _, jobs = odd_jobs
    await jobs.add_many(3)
    held = await jobs.claim(3)
    reasons = ["plain", MESSAGE, "plain"]

    refused = await jobs.as_worker("worker").snooze(
        [(job, Snooze(timedelta(0), reason)) for job, reason in zip(held, reasons, strict=True)]
    )

    assert refused == set()
    assert len(await jobs.claim(3)) == 3


@pytest.mark.parametrize("odd_database", ["LATIN1", "LATIN9"], indirect=True)
async def test_a_whole_life_in_a_database_that_is_not_unicode(
    odd_database: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, dsn = odd_database
    connection = await connect(dsn)
    await migrate(connection)
    await connection.close()
    name = f"odd_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(PHASE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings: dict[str, Any] = {"PGWORKER_WORKFLOW": f"{name}:workflow"}

    async with running_stack(dsn, monkeypatch, simulated={}, settings=settings) as stack:
        good, bad = await stack.add("Ærø"), await stack.add("Évora")
        left = await stack.run_until_empty()

        assert (left.live, left.failed) == (0, 1)
        assert (await stack.fetch_client(good))["provisioning_status"] == "ready"
        client = await stack.fetch_client(bad)
        assert client["name"] == "Évora"
        assert client["provisioning_error"].startswith("...->?...->?")


# -- what a person types ----------------------------------------------------------------------


@pytest.mark.parametrize("odd_database", ["LATIN1"], indirect=True)
async def test_no_client_gets_a_name_with_replaced_characters(
    odd_jobs: tuple[str, JobsInTest],
) -> None:
    _, jobs = odd_jobs

    with pytest.raises(UnstorableText, match=r"the name .* has the encoding LATIN1, .* lacks Ł ź$"):
        await jobs.commands.create_client(ClientRequest("Łódź"))
    with pytest.raises(UnstorableText, match="the settings of the client"):
        await jobs.commands.create_client(ClientRequest("A", additional_settings={"city": "Łódź"}))

    await jobs.commands.create_client(ClientRequest("Évora"))
    assert await jobs.status.find_client("Évora")
    assert await jobs.pool.fetchval("select count(*) from clients") == 1


@pytest.mark.parametrize("odd_database", ["LATIN1"], indirect=True)
async def test_a_name_that_cannot_be_there_finds_no_other_client(
    odd_jobs: tuple[str, JobsInTest],
) -> None:
    _, jobs = odd_jobs
    await jobs.add_client("?ód?")

    with pytest.raises(UnknownClient):
        await jobs.status.find_client("Łódź")
