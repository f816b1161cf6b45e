"""What concerns many clients: the overview, groups of failures, pauses, probes and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pgworker.models import ErrorKind, Failure, JobStatus
from pgworker.queue.jobs import Jobs
from pgworker.runtime.daemon import Daemon
from pgworker.runtime.readiness import Readiness
from tests.support.jobs import BACKOFF, BACKOFF_CAP, LEASE

if TYPE_CHECKING:
    import httpx

    from tests.support.api import ApiInTest


async def failed_with(api: ApiInTest, *errors: str, kind: ErrorKind = ErrorKind.PERMANENT) -> None:
    """Make a failed client for each error."""
    for number, error in enumerate(errors):
        await api.jobs.add(f"client {number}")
        job = await api.jobs.claim_one()
        await Jobs(api.jobs.pool, worker="worker", lease=LEASE).fail(
            job, Failure(kind, error, retry=False), backoff=BACKOFF, backoff_cap=BACKOFF_CAP
        )


async def groups(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    overview = await client.get("/admin/provisioning")
    assert overview.status_code == 200, overview.text
    found: list[dict[str, Any]] = overview.json()["failed_groups"]
    return found


# -- the overview -----------------------------------------------------------------------------


async def test_the_overview_lists_failed_and_queued_clients_with_the_newest_error(
    admin: httpx.AsyncClient, api: ApiInTest
) -> None:
    await failed_with(api, "the migration 1_init.sql is broken")
    await api.jobs.add_with_status(JobStatus.QUEUED)
    await admin.post("/admin/provisioning/pause", json={})

    overview = (await admin.get("/admin/provisioning")).json()

    assert overview["health"]["failed"] == overview["health"]["queued"] == 1
    (failed,) = overview["failed"]
    assert failed["provisioning_error"] == "the migration 1_init.sql is broken"
    (queued,) = overview["queued"]
    assert "pgworker resume" in queued["job"]["blocked_because"]
    assert [pause["scope"] for pause in overview["pauses"]] == ["all"]
    assert overview["pauses"][0]["paused_by"].endswith(" for adminr")
    assert [phase["phase"] for phase in overview["latency"]] == [
        *("create_project", "await_project", "schema_sync", "smoke_checks")
    ]


async def test_a_browser_gets_a_page_and_a_program_gets_json(admin: httpx.AsyncClient) -> None:
    for accept, media_type in (
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
    ):
        answer = await admin.get("/admin/provisioning", headers={"Accept": accept})
        assert answer.headers["Content-Type"].startswith(media_type)
        assert answer.headers["Vary"] == "Accept"


# -- the same error ---------------------------------------------------------------------------

SAME = [
    ("project abcdefghijklmnopqrst: 500", "project tsrqponmlkjihgfedcba: 500"),
    (
        "database pgw_6f8f1c1e4c0b4b0e9c560d7c3c3f6a10 is full",
        "database pgw_6f8f1c1e4c0b4b0e9c560d7c3c3f6a11 is full",
    ),
    (
        "client 6f8f1c1e-4c0b-4b0e-9c56-0d7c3c3f6a10 has 3 rows",
        "client 00000000-0000-0000-0000-000000000000 has 12 rows",
    ),
    ("gave up after 10 attempts: HTTP 503", "gave up after 3 attempts: HTTP 503"),
    ("no answer within 12.5 s", "no answer within 30 s"),
]
DIFFERENT = [
    ("20260101000000_init.sql:3: broken", "20260101000000_init.sql:4: broken"),
    ("20260101000000_init.sql: broken", "20260102000000_init.sql: broken"),
    ("no such region", "no such plan"),
]


@pytest.mark.parametrize("errors", SAME)
async def test_errors_that_differ_in_ids_and_numbers_only_are_the_same(
    admin: httpx.AsyncClient, api: ApiInTest, errors: tuple[str, str]
) -> None:
    await failed_with(api, *errors)
    (group,) = await groups(admin)
    assert group["jobs"] == 2
    assert group["sample_client_names"] == ["client 1", "client 0"]


@pytest.mark.parametrize("errors", DIFFERENT)
async def test_errors_with_another_cause_are_not_the_same(
    admin: httpx.AsyncClient, api: ApiInTest, errors: tuple[str, str]
) -> None:
    await failed_with(api, *errors)
    assert [group["jobs"] for group in await groups(admin)] == [1, 1]


async def test_one_request_retries_all_that_failed_with_the_same_error_and_no_others(
    admin: httpx.AsyncClient, api: ApiInTest
) -> None:
    await failed_with(api, *(f"limit reached after {n} s" for n in range(7)), kind=ErrorKind.QUOTA)
    await failed_with(api, "another error")
    largest, other = await groups(admin)
    assert (largest["jobs"], largest["error_kind"]) == (7, "quota")

    path = f"/admin/provisioning/failures/{largest['group_id']}/retry"
    done = await admin.post(path)

    assert (done.status_code, done.json()) == (200, {"retried": 7})
    assert await groups(admin) == [other]
    assert (await api.jobs.status.get_health()).queued == 7
    assert (await admin.post(path)).status_code == 409


# -- pauses -----------------------------------------------------------------------------------


async def test_a_pause_is_news_once(admin: httpx.AsyncClient, api: ApiInTest) -> None:
    path = "/admin/provisioning"
    scope = {"scope": "provision"}
    for is_news in (True, False):
        paused = await admin.post(f"{path}/pause", json=scope)
        assert paused.json() == {**scope, "is_paused": True, "is_news": is_news}
    for is_news in (True, False):
        resumed = await admin.post(f"{path}/resume", json=scope)
        assert resumed.json() == {**scope, "is_paused": False, "is_news": is_news}


async def test_an_unknown_workflow_is_not_paused(admin: httpx.AsyncClient) -> None:
    refused = await admin.post("/admin/provisioning/pause", json={"scope": "nonsense"})
    assert refused.status_code == 404
    assert "choose all or provision" in refused.json()["detail"]


# -- probes and metrics -----------------------------------------------------------------------


async def missing(client: httpx.AsyncClient) -> set[str]:
    answer = await client.get("/readyz")
    if answer.status_code == 200:
        return set()
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert all(each["what"] in problem["detail"] for each in problem["missing"])
    return {each["name"] for each in problem["missing"]}


@pytest.fixture
def _always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    monkeypatch.setattr("pgworker.runtime.readiness.CACHED_FOR", timedelta(0))


@pytest.mark.usefixtures("_always_fresh")
async def test_readiness_names_what_is_missing(admin: httpx.AsyncClient, api: ApiInTest) -> None:
    assert await missing(admin) == set()
    await api.jobs.pool.execute(
        "insert into pgworker.breakers (credential, reason, probe_at)"
        " values ('a token', 'HTTP 401', now())"
    )
    assert await missing(admin) == {"credentials"}
    api.service.readiness = Readiness(api.service.platform, Daemon(api.service.platform))
    assert await missing(admin) == {"credentials", "worker"}
    await api.jobs.pool.execute(
        "delete from pgworker.schema_history where name = (select max(name) from"
        " pgworker.schema_history)"
    )
    assert await missing(admin) == {"schema", "worker"}


@pytest.mark.usefixtures("_always_fresh")
async def test_readiness_shows_strangers_no_address(
    api: ApiInTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncpg

    async def gone(*_: object, **__: object) -> None:
        raise asyncpg.ConnectionDoesNotExistError("secret-host:5432")

    monkeypatch.setattr("pgworker.runtime.readiness.read_state", gone)
    answer = await (await api.client(None)).get("/readyz")
    assert answer.status_code == 503
    assert [each["name"] for each in answer.json()["missing"]] == ["database"]
    assert "secret-host" not in answer.text


async def test_a_process_whose_worker_has_died_is_not_healthy(
    admin: httpx.AsyncClient, api: ApiInTest
) -> None:
    assert (await admin.get("/healthz")).json() == {"status": "ok"}
    daemon = Daemon(api.service.platform)
    api.service.daemon = daemon
    assert (await admin.get("/healthz")).status_code == 200
    daemon.started.set()
    assert (await admin.get("/healthz")).status_code == 503


async def test_metrics_show_the_state_of_the_queue(
    admin: httpx.AsyncClient, api: ApiInTest
) -> None:
    await api.jobs.add_with_status(JobStatus.FAILED)
    answer = await admin.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    families = {each.name: each for each in text_string_to_metric_families(answer.text)}
    values = {
        name.removeprefix("pgworker_queue_"): family.samples[0].value
        for name, family in families.items()
        if name.startswith("pgworker_queue_")
    }
    health = await api.jobs.status.get_health()
    assert values.keys() == set(health._fields)
    assert values["failed"] == 1


async def test_a_database_that_is_away_is_503_and_a_bug_is_500(
    api: ApiInTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    from pgworker.errors import DatabaseUnreachable
    from tests.support.api import BASE_URL, TOKENS

    transport = httpx.ASGITransport(api.app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {TOKENS['admin']}"}  # type: ignore[index]
    async with httpx.AsyncClient(transport=transport, base_url=BASE_URL, headers=headers) as client:
        for error, status in ((DatabaseUnreachable("gone"), 503), (ZeroDivisionError("x"), 500)):

            async def broken(*_: object, error: Exception = error, **__: object) -> None:
                raise error

            monkeypatch.setattr(api.service.pages, "list_clients", broken)
            answer = await client.get("/clients")
            assert answer.status_code == status
            assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["detail"] == "internal error: the log has the details"
