"""Every answer of every operation, in every state, agrees with the published document."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from pgworker.simulator import Answer, SimulatorSettings, running_simulator
from pgworker.simulator.app import OPERATIONS
from tests.simulator.contract import ContractChecker

STATES = (
    "UNKNOWN",
    "COMING_UP",
    "ACTIVE_HEALTHY",
    "ACTIVE_UNHEALTHY",
    "INIT_FAILED",
    "INACTIVE",
    "PAUSING",
    "RESTORING",
    "RESTORE_FAILED",
    "PAUSE_FAILED",
    "GOING_DOWN",
    "REMOVED",
    "UPGRADING",
    "RESTARTING",
    "RESIZING",
    "VANISHED",
)


async def use_every_operation(client: httpx.AsyncClient, organization: str, ref: str) -> None:
    project = f"/v1/projects/{ref}"
    await client.get("/v1/organizations")
    await client.get(f"/v1/organizations/{organization}")
    listing = f"/v1/organizations/{organization}/projects"
    await client.get(
        listing, params={"limit": 2, "offset": 1, "search": "a", "sort": "created_desc"}
    )
    await client.get(listing, params={"statuses": "ACTIVE_HEALTHY"})
    await client.get("/v1/projects")
    await client.get("/v1/projects/available-regions", params={"organization_slug": organization})
    await client.get(project)
    services = ["auth", "db", "pooler", "realtime", "rest", "storage"]
    await client.get(f"{project}/health", params={"services": services, "timeout_ms": 100})
    await client.get(f"{project}/api-keys")
    await client.get(f"{project}/api-keys", params={"reveal": "true"})
    await client.post(f"{project}/api-keys", json={"type": "secret", "name": "another"})
    await client.get(f"{project}/api-keys/legacy")
    for sql in ("select 1 as one", "selec 1"):
        await client.post(f"{project}/database/query", json={"query": sql})
        await client.post(f"{project}/database/query/read-only", json={"query": sql})
    await client.patch(f"{project}/database/password", json={"password": "another-one"})
    await client.get(f"{project}/config/database/pooler")
    await client.get(f"{project}/database/migrations")
    migration = {"query": "select 1"}
    await client.post(f"{project}/database/migrations", json=migration)
    await client.put(f"{project}/database/migrations", json=migration)
    await client.delete(f"{project}/database/migrations", params={"gte": "1"})
    await client.post(f"{project}/pause")
    await client.post(f"{project}/restore")
    await client.delete(project)


async def test_answers_in_every_state_of_a_project_agree_with_the_document(
    start: Any, contract_checker: ContractChecker
) -> None:
    async with start(middleware=(contract_checker.middleware,)) as sim:
        organization = sim.simulator.organization
        for state in STATES:
            ref = await sim.create(f"in-{state}")
            sim.simulator.projects.get(ref).replace_final_status(state)
            await use_every_operation(sim.client, organization, ref)

    assert contract_checker.requests == []
    assert contract_checker.answers == []
    used = {name for name, statuses in contract_checker.seen.items() if statuses}
    assert used == {f"{op.method} {op.path}" for op in OPERATIONS if op.scope}
    assert contract_checker.seen["POST /v1/projects/{ref}/database/query"] >= {201, 400, 404}


async def test_refusals_agree_with_the_document(
    start: Any, contract_checker: ContractChecker
) -> None:
    async with start(middleware=(contract_checker.middleware,), rate_limit=1) as sim:
        organization = sim.simulator.organization
        for headers in ({"authorization": ""}, {}, {}):
            sim.client.headers.update(headers)
            ref = "a" * 20
            await use_every_operation(sim.client, organization, ref)
            sim.client.headers["authorization"] = f"Bearer {sim.simulator.token}"

    assert contract_checker.requests == []
    assert contract_checker.answers == []
    assert {401, 200, 429} <= contract_checker.seen["GET /v1/organizations"]


@pytest.mark.parametrize(
    ("answer", "about"),
    [
        (Answer(200, [{"id": "x", "name": "no slug"}]), "fails required"),
        (Answer(200, {"not": "a list"}), "fails type"),
        (Answer(418, {"message": "teapot"}), "is not in the document"),
        (Answer(400, {"error": "no message"}), "fails required"),
        (Answer(200, "<html>"), "is not JSON"),
    ],
)
async def test_the_checker_notices_a_wrong_answer(
    server_dsn: str, contract_checker: ContractChecker, answer: Answer, about: str
) -> None:
    settings = SimulatorSettings(admin_dsn=server_dsn)
    async with (
        running_simulator(settings, middleware=[contract_checker.middleware]) as simulator,
        httpx.AsyncClient(base_url=simulator.url, timeout=60) as client,
    ):
        simulator.faults.order(operation="list_organizations", fault=answer)
        await client.get(
            "/v1/organizations", headers={"authorization": f"Bearer {simulator.token}"}
        )

    assert about in str(contract_checker.answers[0])


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("POST", "/v1/projects", {"json": {"name": "no organization"}}),
        ("POST", "/v1/projects", {"content": b"{"}),
        ("GET", "/v1/organizations/o/projects", {"params": {"limit": "101"}}),
        ("GET", "/v1/projects/short/health", {"params": {"services": "db"}}),
        ("GET", f"/v1/projects/{'a' * 20}/health", {"params": {"services": "db,rest"}}),
        ("GET", f"/v1/projects/{'a' * 20}/health", {}),
        ("GET", "/v1/no-such-thing", {}),
    ],
)
async def test_the_checker_notices_a_wrong_request(
    start: Any, contract_checker: ContractChecker, method: str, path: str, sent: dict[str, Any]
) -> None:
    async with start(middleware=(contract_checker.middleware,)) as sim:
        await sim.client.request(method, path, **sent)

    assert contract_checker.requests
    assert contract_checker.answers == []


async def test_the_checker_notices_an_unknown_query_parameter(
    start: Any, contract_checker: ContractChecker
) -> None:
    async with start(middleware=(contract_checker.middleware,)) as sim:
        await sim.client.get("/v1/organizations", params={"page": "2"})

    assert "unknown query parameter page" in str(contract_checker.requests[0])
