"""Ordered faults happen with the requests that they match, and with no others."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from pgworker.simulator import (
    Answer,
    Becomes,
    Drop,
    ExtraFields,
    Fault,
    Hang,
    Organization,
    Truncated,
)
from tests.support.workers import TIMEOUT, within

BODY = {"name": "acme", "organization_slug": Organization().slug, "db_pass": "correct-horse"}


@pytest.mark.parametrize("after_effect", [True, False])
@pytest.mark.parametrize("status", [500, 502, 504, 520, 524])
async def test_a_create_answers_5xx_with_or_without_having_created(
    start: Any, status: int, after_effect: bool
) -> None:
    async with start() as sim:
        fault = Answer(status, after_effect=after_effect)
        sim.simulator.faults.order(operation="create_project", fault=fault)
        response = await sim.client.post("/v1/projects", json=BODY)
        assert (response.status_code, response.text) == (status, f"error code: {status}")
        assert await sim.listed_names() == (["acme"] if after_effect else [])
        assert sim.simulator.ledger.creates_by_name["acme"] == int(after_effect)


async def test_only_the_third_create_meets_its_fault(start: Any) -> None:
    async with start() as sim:
        sim.simulator.faults.order(
            operation="create_project", nth=3, fault=Answer(504, after_effect=True)
        )
        answers = [
            (await sim.client.post("/v1/projects", json=BODY | {"name": name})).status_code
            for name in "abcd"
        ]
        assert answers == [201, 201, 504, 201]
        assert await sim.listed_names() == ["a", "b", "c", "d"]


@pytest.mark.parametrize("after_effect", [True, False])
async def test_a_dropped_connection_has_created_or_has_not(start: Any, after_effect: bool) -> None:
    async with start() as sim:
        fault = Drop(after_effect=after_effect)
        sim.simulator.faults.order(operation="create_project", fault=fault)
        with pytest.raises(httpx.TransportError):
            await sim.client.post("/v1/projects", json=BODY)
        assert await sim.listed_names() == (["acme"] if after_effect else [])
        (entry,) = sim.simulator.ledger.find("create_project")
        assert (entry.status, entry.fault, entry.took_effect) == (None, "drop", after_effect)


async def test_dropping_one_connection_leaves_the_others(start: Any) -> None:
    async with start() as sim:
        waiting = sim.simulator.faults.order(operation="list_projects", fault=Hang())
        sim.simulator.faults.order(operation="create_project", fault=Drop())
        other = asyncio.create_task(sim.client.get("/v1/projects"))
        await waiting.reached.wait()
        with pytest.raises(httpx.TransportError):
            await sim.client.post("/v1/projects", json=BODY)
        waiting.release()
        assert (await other).status_code == 200


@pytest.mark.parametrize("after_effect", [True, False])
async def test_a_hanging_create_continues_when_released(start: Any, after_effect: bool) -> None:
    async with start() as sim:
        order = sim.simulator.faults.order(
            operation="create_project", fault=Hang(after_effect=after_effect)
        )
        create = asyncio.create_task(sim.client.post("/v1/projects", json=BODY))
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            await order.reached.wait()
            assert await sim.listed_names() == (["acme"] if after_effect else [])
            order.release()
            assert (await create).status_code == 201


async def test_a_create_still_happens_after_its_caller_has_gone(start: Any) -> None:
    async with start() as sim:
        order = sim.simulator.faults.order(operation="create_project", fault=Hang())
        create = asyncio.create_task(sim.client.post("/v1/projects", json=BODY))
        await within(order.reached.wait())
        create.cancel()
        await asyncio.wait([create])
        order.release()
        # Released before this request, so the create comes first.
        assert await sim.listed_names() == ["acme"]


async def test_a_slow_answer_comes_after_its_seconds(start: Any) -> None:
    async with start() as sim:
        sim.simulator.faults.order(operation="list_projects", fault=Hang(seconds=0.01))
        assert (await sim.client.get("/v1/projects")).status_code == 200


async def test_an_answer_can_be_truncated_or_something_else_than_json(start: Any) -> None:
    async with start() as sim:
        sim.simulator.faults.order(operation="create_project", fault=Truncated())
        cut = await sim.client.post("/v1/projects", json=BODY)
        assert cut.status_code == 201
        with pytest.raises(json.JSONDecodeError):
            cut.json()
        assert await sim.listed_names() == ["acme"]
        html = Answer(200, "<html>Bad gateway</html>")
        sim.simulator.faults.order(operation="list_projects", fault=html)
        answer = await sim.client.get("/v1/projects")
        assert answer.headers["content-type"].startswith("text/html")


async def test_a_burst_of_401_ends(start: Any) -> None:
    async with start() as sim:
        sim.simulator.faults.order(
            operation="*", times=3, fault=Answer(401, {"message": "Unauthorized"})
        )
        statuses = [(await sim.client.get("/v1/projects")).status_code for _ in range(5)]
        assert statuses == [401, 401, 401, 200, 200]


async def test_a_fault_ends_with_its_time(start: Any) -> None:
    async with start() as sim:
        sim.simulator.faults.order(
            operation="*", times=None, seconds=30, fault=Answer(401, {"message": "Unauthorized"})
        )
        assert (await sim.client.get("/v1/projects")).status_code == 401
        sim.clock.advance(30)
        assert (await sim.client.get("/v1/projects")).status_code == 200


async def test_revealing_keys_alone_can_be_forbidden(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        sim.simulator.faults.order(
            operation="list_api_keys", query={"reveal": "true"}, times=None, fault=Answer(403)
        )
        path = f"/v1/projects/{ref}/api-keys"
        assert (await sim.client.get(path)).status_code == 200
        assert (await sim.client.get(path, params={"reveal": "true"})).status_code == 403


async def test_an_ordered_429_says_how_long_to_wait(start: Any) -> None:
    async with start() as sim:
        fault = Answer(429, {"message": "Too Many Requests"}, {"X-RateLimit-Reset": "7"})
        sim.simulator.faults.order(operation="list_projects", fault=fault)
        answer = await sim.client.get("/v1/projects")
        assert answer.status_code == 429
        assert answer.headers.get_list("x-ratelimit-reset") == ["7"]


async def test_every_page_but_the_first_can_fail(start: Any) -> None:
    async with start() as sim:
        sim.simulator.faults.order(
            operation="list_organization_projects",
            query={"offset": "[1-9]*"},
            times=None,
            fault=Answer(500),
        )
        path = f"/v1/organizations/{sim.simulator.organization}/projects"
        statuses = [
            (await sim.client.get(path, params={"offset": offset})).status_code
            for offset in (0, 100, 0, 200)
        ]
        assert statuses == [200, 500, 200, 500]


async def test_a_fault_can_match_one_project_by_name(start: Any) -> None:
    async with start() as sim:
        first, second = await sim.create("first"), await sim.create("second")
        sim.simulator.faults.order(
            operation="*", project="second", times=None, fault=Answer(400, {"message": "no"})
        )
        assert (await sim.client.get(f"/v1/projects/{first}")).status_code == 200
        assert (await sim.client.get(f"/v1/projects/{second}")).status_code == 400


async def test_unknown_fields_come_with_every_second_answer(start: Any) -> None:
    async with start() as sim:
        sim.simulator.faults.order(
            operation="list_organizations", every=2, times=None, fault=ExtraFields()
        )
        answers = [(await sim.client.get("/v1/organizations")).json() for _ in range(4)]
        extra = ["x_unknown" in organizations[0] for organizations in answers]
        assert extra == [True, False, True, False]


@pytest.mark.parametrize("status", ["INIT_FAILED", "COMING_UP", "INACTIVE", "HIBERNATING"])
async def test_a_new_project_ends_up_as_ordered(start: Any, status: str) -> None:
    async with start(coming_up_seconds=60) as sim:
        sim.simulator.faults.order(operation="create_project", fault=Becomes(status))
        ref = await sim.create()
        before = (await sim.client.get(f"/v1/projects/{ref}")).json()["status"]
        sim.clock.advance(3600)
        after = (await sim.client.get(f"/v1/projects/{ref}")).json()["status"]
        assert (before, after) == ("COMING_UP", status)
        assert (await sim.listing())["projects"][0]["status"] == status


async def test_a_project_can_vanish(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        sim.simulator.faults.order(operation="get_health", fault=Becomes("VANISHED"))
        await sim.client.get(f"/v1/projects/{ref}/health?services=db")
        assert (await sim.client.get(f"/v1/projects/{ref}")).status_code == 404
        assert await sim.listed_names() == []


async def test_a_query_that_answers_544_commits_nevertheless(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        sim.simulator.faults.order(
            operation="run_query", contains="create table", fault=Answer(544, after_effect=True)
        )
        assert (await sim.query(ref, "select 1")).status_code == 201
        assert (await sim.query(ref, "create table t (a int)")).status_code == 544
        assert (await sim.query(ref, "select * from t")).json() == []


async def test_closing_ends_hanging_requests_without_an_effect(start: Any) -> None:
    async with asyncio.timeout(TIMEOUT.total_seconds()):
        async with start() as sim:
            order = sim.simulator.faults.order(operation="create_project", fault=Hang())
            create = asyncio.create_task(sim.client.post("/v1/projects", json=BODY))
            await order.reached.wait()
        with pytest.raises(httpx.TransportError):
            await create
    assert sim.simulator.ledger.created == []


# -- over HTTP --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Answer(504, after_effect=True),
        Hang(seconds=1.5),
        Drop(),
        Truncated(),
        ExtraFields(),
        Becomes("INIT_FAILED"),
    ],
)
async def test_every_fault_can_be_ordered_over_http(start: Any, fault: Fault) -> None:
    async with start() as sim:
        body = {name: getattr(fault, name) for name in fault.__slots__}
        ordered = await sim.client.post(
            "/__simulator__/faults", json={"operation": "create_project", "fault": body, "nth": 2}
        )
        assert ordered.status_code == 201
        assert sim.simulator.faults.orders()[0].fault == fault


async def test_a_fault_ordered_over_http_is_met_and_released(start: Any) -> None:
    async with start() as sim:
        wanted = {"operation": "list_projects", "times": None, "fault": {"kind": "hang"}}
        number = (await sim.client.post("/__simulator__/faults", json=wanted)).json()["id"]
        request = asyncio.create_task(sim.client.get("/v1/projects"))
        await sim.simulator.faults.orders()[0].reached.wait()
        (shown,) = (await sim.client.get("/__simulator__/faults")).json()
        assert shown == {"id": number, "operation": "list_projects", "kind": "hang", "hits": 1}
        await sim.client.delete(f"/__simulator__/faults/{number}")
        assert (await request).status_code == 200
        assert (await sim.client.get("/v1/projects")).status_code == 200


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ({"operation": "create_projet", "fault": {"kind": "drop"}}, "create_projet"),
        ({"operation": "create_project", "fault": {"kind": "explode"}}, "fault"),
        ({"operation": "create_project"}, "fault"),
    ],
)
async def test_an_invalid_order_is_refused(start: Any, wanted: dict[str, Any], named: str) -> None:
    async with start() as sim:
        response = await sim.client.post("/__simulator__/faults", json=wanted)
        assert response.status_code == 400
        assert named in str(response.json()["message"])


async def test_an_unknown_operation_is_refused_in_process_too(start: Any) -> None:
    async with start() as sim:
        with pytest.raises(ValueError, match="create_projet"):
            sim.simulator.faults.order(operation="create_projet", fault=Drop())


async def test_projects_can_be_planted_over_http(start: Any) -> None:
    async with start() as sim:
        body = {"name": "acme", "is_branch": True}
        assert (await sim.client.post("/__simulator__/projects", json=body)).status_code == 201
        assert (await sim.listing())["projects"][0]["is_branch"] is True
