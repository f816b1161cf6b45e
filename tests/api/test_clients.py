"""Clients over HTTP: order them, list them, show them, retry and cancel them."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from pgworker.models import ErrorKind, JobStatus, Scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from tests.support.api import ApiInTest


# -- ordering ---------------------------------------------------------------------------------


async def test_a_created_client_has_its_job_and_can_be_read(
    admin: httpx.AsyncClient, api: ApiInTest
) -> None:
    ordered = await admin.post(
        "/clients", json={"name": " Acme ", "additional_settings": {"region": "eu", "mine": [1]}}
    )

    assert ordered.status_code == 201, ordered.text
    body = ordered.json()
    assert body["name"] == "Acme"
    assert ordered.headers["Location"] == body["url"] == f"/clients/{body['id']}"
    shown = (await admin.get(body["url"])).json()
    assert (shown["provisioning_status"], shown["job"]["status"]) == ("queued", "queued")
    assert (shown["job"]["phase_number"], shown["job"]["phase_count"]) == (1, 4)
    row = await api.jobs.pool.fetchrow("select * from clients")
    assert row is not None
    assert row["additional_settings"] == {"region": "eu", "mine": [1]}


async def test_a_client_can_be_added_without_a_job(
    admin: httpx.AsyncClient, api: ApiInTest
) -> None:
    ordered = await admin.post("/clients", json={"name": "Acme", "auto_provision": False})
    shown = (await admin.get(ordered.json()["url"])).json()
    assert (shown["provisioning_status"], shown["job"]) == ("not_provisioned", None)


async def test_the_trace_of_the_request_continues_in_the_job(
    admin: httpx.AsyncClient, api: ApiInTest
) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await admin.post("/clients", json={"name": "Acme"}, headers={"traceparent": traceparent})
    job = await api.jobs.pool.fetchrow("select trace_context from client_provisioning_jobs")
    assert job is not None
    assert job["trace_context"] == traceparent


async def test_a_malformed_trace_context_is_ignored(
    admin: httpx.AsyncClient, api: ApiInTest
) -> None:
    await admin.post("/clients", json={"name": "Acme"}, headers={"traceparent": "nonsense"})
    job = await api.jobs.pool.fetchrow("select trace_context from client_provisioning_jobs")
    assert job is not None
    assert job["trace_context"] is None


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "Robert'); drop table clients;--",
        "{{7*7}} ${7*7} %s",
        "Évora 株式会社 👩‍👩‍👧",
        "x" * 200,
        "a\u00a0b",
    ],
)
async def test_a_strange_name_is_a_name(admin: httpx.AsyncClient, name: str) -> None:
    ordered = await admin.post("/clients", json={"name": name})
    assert ordered.status_code == 201, ordered.text
    assert (await admin.get(ordered.json()["url"])).json()["name"] == name
    found = await admin.get("/clients", params={"text": name[:200]})
    assert [each["name"] for each in found.json()["clients"]] == [name]


BAD_ORDERS: dict[str, Any] = {
    "no name": {},
    "an empty name": {"name": ""},
    "a blank name": {"name": " \u2003 "},
    "a long name": {"name": "x" * 201},
    "a null": {"name": "a\0b"},
    "a control character": {"name": "a\x1b[31mb"},
    "a line break": {"name": "a\nb"},
    "a line separator": {"name": "a\u2028b"},
    "a change of direction": {"name": "a\u202eb"},
    "not a text": {"name": 7},
    "an unknown field": {"name": "Acme", "status": "ready"},
    "the worker's own key": {"name": "Acme", "additional_settings": {"provisioning": {}}},
    "a null in the settings": {"name": "Acme", "additional_settings": {"a": ["\0"]}},
    "settings that are a list": {"name": "Acme", "additional_settings": []},
    "long settings": {"name": "Acme", "additional_settings": {"a": "x" * 17_000}},
    "not an object": [],
}


@pytest.mark.parametrize("order", BAD_ORDERS.values(), ids=BAD_ORDERS)
async def test_a_bad_request_is_refused_with_the_field_that_is_wrong(
    admin: httpx.AsyncClient, api: ApiInTest, order: Any
) -> None:
    refused = await admin.post("/clients", json=order)

    assert refused.status_code == 422, refused.text
    assert refused.headers["Content-Type"] == "application/problem+json"
    problem = refused.json()
    assert problem["errors"][0]["where"].startswith("body")
    assert problem["detail"]
    assert await api.jobs.pool.fetchval("select count(*) from clients") == 0


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"\xff\xfe", 422),
        (b'{"name": "\\ud800"}', 422),
        (b'{"name": "Acme", "additional_settings": {"a": "\\ud800"}}', 422),
        (b'{"name": "Acme", "additional_settings": {"\\udc00": 1}}', 422),
        (b'{"name": "Acme", "additional_settings": {"a": NaN}}', 422),
        (b'{"name": "Acme", "additional_settings": {"a": 1e999}}', 422),
        (b'{"name": "Acme", "additional_settings": {"a": ' + b"9" * 5000 + b"}}", 400),
        (
            b'{"name": "Acme", "additional_settings": ' + b"[" * 20000 + b"]" * 20000 + b"}",
            400,
        ),
        (b'{"name": "' + b"x" * 70_000 + b'"}', 413),
    ],
)
async def test_a_broken_body_is_the_callers_mistake(
    admin: httpx.AsyncClient, content: bytes, status: int
) -> None:
    headers = {"Content-Type": "application/json"}
    refused = await admin.post("/clients", content=content, headers=headers)
    assert refused.status_code == status, refused.text
    assert refused.headers["Content-Type"] == "application/problem+json"


# -- ordering once ----------------------------------------------------------------------------


async def test_the_same_request_with_the_same_key_creates_one_client(
    admin: httpx.AsyncClient, api: ApiInTest
) -> None:
    headers = {"Idempotency-Key": "signup-7"}
    first = await admin.post("/clients", json={"name": "Acme"}, headers=headers)
    again = await admin.post("/clients", json={"name": "Acme"}, headers=headers)

    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert first.headers["Location"] == again.headers["Location"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert await api.jobs.pool.fetchval("select count(*) from clients") == 1


async def test_another_request_with_the_same_key_is_refused(admin: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "signup-7"}
    await admin.post("/clients", json={"name": "Acme"}, headers=headers)
    for other in ({"name": "Globex"}, {"name": "Acme", "auto_provision": False}):
        refused = await admin.post("/clients", json=other, headers=headers)
        assert refused.status_code == 422
        assert "Idempotency-Key" in refused.json()["detail"]


async def test_keys_of_two_bearers_do_not_meet(api: ApiInTest) -> None:
    headers = {"Idempotency-Key": "signup-7"}
    ids = set()
    for scope in (Scope.OPERATE, Scope.ADMIN):
        client = await api.client(scope)
        ordered = await client.post("/clients", json={"name": "Acme"}, headers=headers)
        ids.add(ordered.json()["id"])
    assert len(ids) == 2


async def test_ten_at_once_with_one_key_make_one_client(
    admin: httpx.AsyncClient, api: ApiInTest
) -> None:
    headers = {"Idempotency-Key": "signup-7"}
    answers = await asyncio.gather(
        *(admin.post("/clients", json={"name": "Acme"}, headers=headers) for _ in range(10))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await api.jobs.pool.fetchval("select count(*) from clients") == 1
    assert await api.jobs.pool.fetchval("select count(*) from client_provisioning_jobs") == 1


async def test_a_key_is_forgotten_after_a_week(admin: httpx.AsyncClient, api: ApiInTest) -> None:
    headers = {"Idempotency-Key": "signup-7"}
    first = await admin.post("/clients", json={"name": "Acme"}, headers=headers)
    await api.jobs.pool.execute(
        "update pgworker.idempotency_keys set created_at = now() - interval '8 days'"
    )
    again = await admin.post("/clients", json={"name": "Acme"}, headers=headers)
    assert first.json()["id"] != again.json()["id"]


async def test_a_refused_request_leaves_its_key_free(
    admin: httpx.AsyncClient, api: ApiInTest
) -> None:
    headers = {"Idempotency-Key": "signup-7"}
    await admin.post("/clients", json={"name": ""}, headers=headers)
    done = await admin.post("/clients", json={"name": "Acme"}, headers=headers)
    assert done.status_code == 201


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "\t"])
async def test_a_key_that_cannot_be_kept_is_refused(admin: httpx.AsyncClient, key: str) -> None:
    refused = await admin.post("/clients", json={"name": "Acme"}, headers={"Idempotency-Key": key})
    assert refused.status_code == 422


# -- lists ------------------------------------------------------------------------------------


async def names_of_all_pages(client: httpx.AsyncClient, **query: Any) -> list[str]:
    names: list[str] = []
    cursor = None
    while True:
        page = await client.get("/clients", params=query | ({"cursor": cursor} if cursor else {}))
        assert page.status_code == 200, page.text
        names += [each["name"] for each in page.json()["clients"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            return names


async def test_the_pages_of_a_list_are_the_list(admin: httpx.AsyncClient, api: ApiInTest) -> None:
    # One statement: all have the same time, so that only the id orders them.
    await api.jobs.add_many(25)
    whole = await names_of_all_pages(admin, limit=1000)
    assert sorted(whole) == sorted(f"client {number}" for number in range(1, 26))
    for limit in (1, 5, 7, 25):
        assert await names_of_all_pages(admin, limit=limit) == whole


async def test_a_client_that_comes_meanwhile_shifts_no_page(
    admin: httpx.AsyncClient, api: ApiInTest
) -> None:
    await api.jobs.add_many(10)
    whole = await names_of_all_pages(admin)
    first = (await admin.get("/clients", params={"limit": 5})).json()
    await api.jobs.add("a newcomer")
    rest = (await admin.get("/clients", params={"cursor": first["next_cursor"]})).json()
    shown = [each["name"] for each in first["clients"] + rest["clients"]]
    assert shown == whole


async def test_a_client_of_unknown_age_comes_last_and_is_not_lost(
    admin: httpx.AsyncClient, api: ApiInTest
) -> None:
    # An adopted table may have been so.
    await api.jobs.pool.execute("alter table clients alter column created_at drop not null")
    for name in ("old 1", "new", "old 2"):
        await api.jobs.add(name)
    await api.jobs.pool.execute("update clients set created_at = null where name like 'old%'")
    names = await names_of_all_pages(admin, limit=1)
    assert names[0] == "new"
    assert sorted(names[1:]) == ["old 1", "old 2"]


async def test_a_list_can_be_filtered(admin: httpx.AsyncClient, api: ApiInTest) -> None:
    await api.jobs.add_with_status(JobStatus.SUCCEEDED)
    failed = await api.jobs.add_with_status(JobStatus.FAILED)
    job = await api.jobs.add_claimed()
    await api.jobs.advance(job, "await_project")
    await api.jobs.fail(job, kind=ErrorKind.TRANSIENT)
    await api.jobs.pool.execute(
        "update clients set name = 'Bäckerei Müller' where id = $1", job.client_id
    )
    await api.jobs.add_with_status(JobStatus.CANCELLED)
    failed_client = (await api.jobs.fetch_client(failed))["id"]
    await api.jobs.pool.execute(
        "update clients set project_ref = 'aref' where id = $1", failed_client
    )

    async def listed(**query: str) -> list[str]:
        return await names_of_all_pages(admin, **query)

    assert await listed(status="ready") == ["a client to be succeeded"]
    assert await listed(kind="permanent") == ["a client to be failed"]
    assert await listed(kind="transient") == ["Bäckerei Müller"]
    assert await listed(kind="quota") == []
    assert await listed(phase="await_project") == ["Bäckerei Müller"]
    assert await listed(phase="create_project") == ["a client to be failed"]
    assert await listed(phase="create_project", status="ready") == []
    assert await listed(text="BäCKEREI") == ["Bäckerei Müller"]
    assert await listed(text="%") == []
    assert await listed(text=str(failed_client)) == ["a client to be failed"]
    assert await listed(text="aref", kind="permanent") == ["a client to be failed"]


async def test_jobs_can_be_listed_and_filtered(admin: httpx.AsyncClient, api: ApiInTest) -> None:
    for status in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.WAITING):
        await api.jobs.add_with_status(status)
    queued = await api.jobs.add_with_status(JobStatus.QUEUED)

    async def listed(**query: Any) -> list[str]:
        page = await admin.get("/clients/provisioning/jobs", params=query)
        assert page.status_code == 200, page.text
        return [job["status"] for job in page.json()["jobs"]]

    assert await listed() == ["queued", "waiting", "failed", "succeeded"]
    assert await listed(status="failed") == ["failed"]
    assert await listed(kind="permanent") == ["failed"]
    assert await listed(text="to be succ") == ["succeeded"]
    client_id = (await api.jobs.fetch_client(queued))["id"]
    assert await listed(client_id=str(client_id)) == ["queued"]
    first = (await admin.get("/clients/provisioning/jobs", params={"limit": 3})).json()
    assert await listed(cursor=first["next_cursor"]) == ["succeeded"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "status=nonsense",
        "kind=nonsense",
        "phase=" + "x" * 65,
        "text=",
        "text=%00",
        "cursor=nonsense",
        "cursor=%C3%A9",
        "cursor=" + "A" * 501,
        # Those of a list of jobs, of no list, and of a place that is none.
        "cursor=WyJqIiw1XQ",
        "cursor=W10",
        "cursor=WyJjIiwieCIsInkiXQ",
        "cursor=WyJjIiw1LDZd",
    ],
)
async def test_an_impossible_list_is_refused(admin: httpx.AsyncClient, query: str) -> None:
    refused = await admin.get(f"/clients?{query}")
    assert refused.status_code == 422, refused.text
    assert refused.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("place", [True, -1, 2**63, "5", None, 1.5, [], {}])
async def test_a_made_up_cursor_of_jobs_is_refused(admin: httpx.AsyncClient, place: Any) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(["j", place]).encode()).decode().rstrip("=")
    refused = await admin.get("/clients/provisioning/jobs", params={"cursor": cursor})
    assert refused.status_code == 422, refused.text


# -- not modified -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/clients", "/clients/provisioning/jobs", "/clients/{id}"])
async def test_a_caller_that_has_the_newest_answer_gets_304(
    admin: httpx.AsyncClient, api: ApiInTest, path: str
) -> None:
    job_id = await api.jobs.add()
    path = path.format(id=(await api.jobs.fetch_client(job_id))["id"])
    first = await admin.get(path)
    tag = first.headers["ETag"]

    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await admin.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b""), known
        assert again.headers["ETag"] == tag
    assert (await admin.get(path, headers={"If-None-Match": '"other"'})).status_code == 200

    await api.jobs.claim()
    changed = await admin.get(path, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag


# -- retry and cancel -------------------------------------------------------------------------


async def test_a_failed_client_is_retried_at_its_phase(
    admin: httpx.AsyncClient, api: ApiInTest
) -> None:
    job_id = await api.jobs.add_with_status(JobStatus.FAILED)
    client_id = (await api.jobs.fetch_client(job_id))["id"]
    done = await admin.post(f"/clients/{client_id}/provisioning/retry")
    assert (done.status_code, done.json()) == (200, {"job_id": job_id})
    assert await api.jobs.fetch_status(job_id) is JobStatus.QUEUED


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED])
async def test_what_has_not_failed_is_not_retried(
    admin: httpx.AsyncClient, api: ApiInTest, status: JobStatus
) -> None:
    job_id = await api.jobs.add_with_status(status)
    client_id = (await api.jobs.fetch_client(job_id))["id"]
    refused = await admin.post(f"/clients/{client_id}/provisioning/retry")
    assert refused.status_code == 409
    assert str(status) in refused.json()["detail"]


async def test_a_client_is_cancelled_once(admin: httpx.AsyncClient, api: ApiInTest) -> None:
    job_id = await api.jobs.add_with_status(JobStatus.RUNNING)
    client_id = (await api.jobs.fetch_client(job_id))["id"]
    path = f"/clients/{client_id}/provisioning/cancel"
    assert (await admin.post(path)).json() == {"cancelled": 1}
    assert await api.jobs.fetch_status(job_id) is JobStatus.CANCELLED
    assert (await admin.post(path)).status_code == 409


@pytest.mark.parametrize("action", ["retry", "cancel"])
async def test_an_unknown_client_is_404(admin: httpx.AsyncClient, action: str) -> None:
    for path in (f"/clients/{uuid4()}/provisioning/{action}", f"/clients/{uuid4()}"):
        method = "POST" if action in path else "GET"
        refused = await admin.request(method, path)
        assert refused.status_code == 404
        assert "there is no client" in refused.json()["detail"]


async def test_what_is_no_id_is_422(admin: httpx.AsyncClient) -> None:
    refused = await admin.get("/clients/acme")
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["where"] == "path.client_id"


# -- the badge --------------------------------------------------------------------------------


async def test_the_badge_shows_the_status_and_escapes_what_strangers_wrote(
    admin: httpx.AsyncClient, api: ApiInTest
) -> None:
    job = await api.jobs.add_claimed()
    shown = await admin.get(f"/clients/{job.client_id}/badge.svg")
    assert shown.headers["Content-Type"] == "image/svg+xml"
    assert "creating project 1/4" in shown.text
    await api.jobs.pool.execute(
        """update clients set provisioning_status = '<script>"' where id = $1""", job.client_id
    )
    hostile = await admin.get(f"/clients/{job.client_id}/badge.svg")
    assert "<script" not in hostile.text
    assert UUID(str(job.client_id))


async def test_a_body_without_an_announced_end_is_cut_off(admin: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 1000

    headers = {"Content-Type": "application/json"}
    refused = await admin.post("/clients", content=endless(), headers=headers)
    assert refused.status_code == 413
    assert refused.headers["Content-Type"] == "application/problem+json"
