"""Streams follow transitions as they are made, over real HTTP."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import httpx
import pytest

from pgworker.api.server import serving
from pgworker.context import open_platform
from pgworker.errors import DatabaseUnreachable, TooManyStreams
from pgworker.models import ErrorKind, JobStatus
from pgworker.settings import load_settings
from pgworker.status import events as event_feed
from pgworker.status.events import Delivered, EventFeed
from pgworker.status.progress import ProgressReader
from tests.support.api import KEY
from tests.support.jobs import JobsInTest, jobs_in
from tests.support.sse import open_events
from tests.support.workers import NEVER, within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.api import ApiInTest


@pytest.fixture(autouse=True)
def _polls_need_a_notification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feed, "POLL_INTERVAL", NEVER)


@dataclass(slots=True)
class Served:
    client: httpx.AsyncClient
    jobs: JobsInTest


@asynccontextmanager
async def served_over(dsn: str, **settings: str) -> AsyncIterator[Served]:
    chosen = load_settings(
        DATABASE_URL=dsn, PGWORKER_ENCRYPTION_KEYS=KEY, PGWORKER_HTTP="127.0.0.1:0", **settings
    )
    async with (
        open_platform(chosen) as platform,
        serving(platform, None) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        yield Served(client, JobsInTest(platform.pool))


@pytest.fixture
async def served(database: str) -> AsyncIterator[Served]:
    async with served_over(database) as running:
        yield running


async def test_a_stream_sends_each_transition_when_it_is_made_until_the_client_is_ready(
    served: Served,
) -> None:
    job = await served.jobs.add_claimed()
    async with open_events(served.client, f"/clients/{job.client_id}/events") as events:
        began = await events.next()
        assert (began.name, began.data["provisioning_status"]) == ("progress", "creating_project")

        await served.jobs.advance(job, "await_project")
        sent = await events.next("transition")
        assert (sent.data["event"], sent.data["to_phase"]) == ("advanced", "await_project")
        assert sent.id == str(sent.data["id"])
        shown = await events.next("progress")
        assert shown.data["provisioning_status"] == "waiting_for_project"
        assert shown.data["job"]["phase_number"] == 2

        await served.jobs.complete(job)
        names = [
            (each.name, each.data.get("provisioning_status")) for each in await events.read_rest()
        ]
        assert names == [("transition", None), ("progress", "ready"), ("end", "ready")]


async def test_a_stream_is_resumed_where_it_ended(served: Served) -> None:
    job = await served.jobs.add_claimed()
    path = f"/clients/{job.client_id}/events"
    async with open_events(served.client, path) as events:
        last = (await events.next()).id
    for phase in ("await_project", "schema_sync"):
        await served.jobs.advance(job, phase)
    async with open_events(served.client, path, after=last or "") as events:
        missed = [(await events.next("transition")).data["to_phase"] for _ in range(2)]
    assert missed == ["await_project", "schema_sync"]


async def test_a_browser_that_reconnects_after_the_end_gets_204(
    served: Served,
) -> None:
    job = await served.jobs.add_claimed()
    await served.jobs.complete(job)
    path = f"/clients/{job.client_id}/events"
    async with open_events(served.client, path) as events:
        sent = await events.read_rest()
    assert [each.name for each in sent] == ["progress", "end"]
    again = await served.client.get(path, headers={"Last-Event-ID": sent[-1].id or ""})
    assert again.status_code == 204
    # From further back there is something to send.
    async with open_events(served.client, path, after=0) as events:
        assert [each.name for each in await events.read_rest()] == [
            *["transition"] * 3, "progress", "end"
        ]  # fmt: skip


async def test_a_follower_sees_a_failed_client_being_retried(served: Served) -> None:
    job_id = await served.jobs.add_with_status(JobStatus.FAILED)
    client_id = (await served.jobs.fetch_client(job_id))["id"]
    async with open_events(served.client, f"/clients/{client_id}/events?follow=true") as events:
        assert (await events.next()).data["provisioning_status"] == "failed"
        await served.client.post(f"/clients/{client_id}/provisioning/retry")
        assert (await events.next("transition")).data["event"] == "retried"
        assert (await events.next("progress")).data["provisioning_status"] == "queued"


async def test_streams_of_several_clients_get_their_own_events_only(served: Served) -> None:
    first, second = await served.jobs.add_claimed(), await served.jobs.add_claimed()
    async with (
        open_events(served.client, f"/clients/{first.client_id}/events") as of_first,
        open_events(served.client, f"/clients/{second.client_id}/events") as of_second,
        open_events(served.client, f"/clients/{second.client_id}/events") as of_second_too,
    ):
        for events in (of_first, of_second, of_second_too):
            await events.next("progress")
        await served.jobs.fail(second, kind=ErrorKind.QUOTA, retry=False)
        for events in (of_second, of_second_too):
            assert (await events.next()).data["error_kind"] == "quota"
        await served.jobs.advance(first)
        assert (await of_first.next()).data["event"] == "advanced"


async def test_the_overviews_stream_says_that_something_has_changed(served: Served) -> None:
    async with open_events(served.client, "/admin/provisioning/events") as events:
        assert (await events.next()).name == "changed"
        await served.jobs.add()
        assert (await events.next()).name == "changed"


async def test_where_listening_is_switched_off_a_stream_polls(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "POLL_INTERVAL_WITHOUT_LISTEN", timedelta(milliseconds=20))
    async with served_over(database, PGWORKER_LISTEN_URL="off") as served:
        job = await served.jobs.add_claimed()
        async with open_events(served.client, f"/clients/{job.client_id}/events") as events:
            await events.next("progress")
            await served.jobs.complete(job)
            assert (await events.read_rest())[-1].name == "end"


async def test_a_stream_of_an_unknown_client_is_404(served: Served) -> None:
    refused = await served.client.get(f"/clients/{uuid4()}/events")
    assert refused.status_code == 404
    assert refused.headers["Content-Type"] == "application/problem+json"


async def test_a_process_that_shuts_down_ends_its_streams(database: str) -> None:
    async with AsyncExitStack() as outside:
        async with served_over(database) as served:
            job = await served.jobs.add_claimed()
            client = await outside.enter_async_context(
                httpx.AsyncClient(base_url=served.client.base_url, timeout=60)
            )
            path = f"/clients/{job.client_id}/events"
            events = await outside.enter_async_context(open_events(client, path))
            await events.next("progress")
        assert await events.read_rest() == []


async def test_a_process_that_shuts_down_opens_no_stream(
    admin: httpx.AsyncClient, api: ApiInTest
) -> None:
    job = await api.jobs.add_claimed()
    api.service.feed.close()
    for path in (f"/clients/{job.client_id}/events", "/admin/provisioning/events"):
        refused = await admin.get(path)
        assert refused.status_code == 503
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert refused.headers["Retry-After"]


# -- the notifications behind it --------------------------------------------------------------


@pytest.mark.parametrize(
    ("watchers", "is_notified"),
    [
        ("select 1", False),
        ("insert into pgworker.watchers values ('x', now() + interval '1 minute')", True),
        ("insert into pgworker.watchers values ('x', now() - interval '1 second')", False),
    ],
)
async def test_events_notify_only_while_a_process_listens(
    database: str, watchers: str, is_notified: bool
) -> None:
    connection = await asyncpg.connect(database)
    heard: list[str] = []
    try:
        await connection.add_listener("pgworker_events", lambda *_: heard.append("event"))
        await connection.execute(watchers)
        async with jobs_in(database) as jobs:
            await jobs.add_claimed()
        # Notifications come in order: what came before this one is here.
        await connection.execute("select pg_notify('pgworker_events', '')")
    finally:
        await connection.close()
    assert len(heard) - 1 == (2 if is_notified else 0)


@asynccontextmanager
async def streams_over(dsn: str, *, max_streams: int = 10) -> AsyncIterator[Streams]:
    async with jobs_in(dsn) as jobs, asyncio.TaskGroup() as tasks:
        streams = EventFeed(jobs.pool, None, max_streams=max_streams, linger=timedelta(0))
        running = tasks.create_task(streams.run())
        yield Streams(streams, jobs)
        running.cancel()


@dataclass(slots=True)
class Streams:
    feed: EventFeed
    jobs: JobsInTest

    async def registered(self) -> int:
        count: int = await self.jobs.pool.fetchval("select count(*) from pgworker.watchers")
        return count

    async def wait_until_unregistered(self) -> None:
        while await self.registered():
            pass


async def test_a_process_is_registered_while_it_has_streams_and_signs_off_afterwards(
    database: str,
) -> None:
    async with streams_over(database) as streams:
        assert await streams.registered() == 0
        for _ in range(2):
            async with streams.feed.stream(uuid4()):
                assert await streams.registered() == 1
            await within(streams.wait_until_unregistered())


async def test_only_so_many_streams_are_open_at_a_time(database: str) -> None:
    async with streams_over(database, max_streams=1) as streams:
        async with streams.feed.stream(uuid4()):
            with pytest.raises(TooManyStreams):
                async with streams.feed.stream(uuid4()):
                    pass
        async with streams.feed.stream(uuid4()):
            pass


def test_an_event_that_becomes_visible_late_with_a_lower_id_is_delivered() -> None:
    delivered = Delivered(settled=10)
    assert delivered.take_new([9, 11, 13], now=0) == {11, 13}
    assert delivered.take_new([11, 12, 13], now=1) == {12}
    assert delivered.take_new([11, 12, 13, 14], now=2) == {14}


def test_what_was_delivered_long_ago_is_forgotten_and_not_delivered_again() -> None:
    delivered = Delivered(settled=10)
    delivered.take_new([11, 12], now=0)
    assert delivered.take_new([13], now=100) == {13}
    assert (delivered.settled, set(delivered.recent)) == (12, {13})
    assert delivered.take_new([11, 12, 13], now=101) == set()


async def test_a_stream_ends_when_the_database_is_gone_and_does_not_break_the_server(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await served.jobs.add_claimed()
    async with open_events(served.client, f"/clients/{job.client_id}/events") as events:
        await events.next("progress")

        async def gone(*_: object) -> None:
            raise DatabaseUnreachable("gone")

        monkeypatch.setattr(ProgressReader, "get", gone)
        await served.jobs.advance(job)
        assert await events.read_rest() == []
    assert (await served.client.get("/healthz")).status_code == 200
