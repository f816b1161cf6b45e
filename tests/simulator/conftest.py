"""Fixtures for tests of the simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from pgworker.simulator import Simulator, SimulatorSettings, running_simulator
from tests.simulator.contract import ContractChecker
from tests.support.workers import TIMEOUT


@pytest.fixture
def contract_checker() -> ContractChecker:
    """Return a new `ContractChecker`."""
    return ContractChecker()


@dataclass
class Clock:
    """A clock that a test advances."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class SimulatorInTest:
    """A running simulator with a client that has its token."""

    simulator: Simulator
    client: httpx.AsyncClient
    clock: Clock
    passwords: dict[str, str] = field(default_factory=dict)

    async def create(self, name: str = "acme", **fields: Any) -> str:
        """Create a project and return its ref."""
        body = {
            "name": name,
            "organization_slug": self.simulator.organization,
            "db_pass": "correct-horse-battery",
            **fields,
        }
        response = await self.client.post("/v1/projects", json=body)
        assert response.status_code == 201, response.text
        return str(response.json()["ref"])

    async def query(self, ref: str, sql: str, **fields: Any) -> httpx.Response:
        return await self.client.post(
            f"/v1/projects/{ref}/database/query", json={"query": sql, **fields}
        )

    async def listing(self, **parameters: Any) -> dict[str, Any]:
        path = f"/v1/organizations/{self.simulator.organization}/projects"
        return dict((await self.client.get(path, params=parameters)).json())

    async def listed_names(self, **parameters: Any) -> list[str]:
        return [project["name"] for project in (await self.listing(**parameters))["projects"]]

    async def keys(self, ref: str, *, reveal: str = "true") -> list[dict[str, Any]]:
        response = await self.client.get(f"/v1/projects/{ref}/api-keys", params={"reveal": reveal})
        assert response.status_code == 200, response.text
        return list(response.json())

    async def data_api(self, ref: str, path: str, **headers: str) -> httpx.Response:
        url = self.simulator.project_url_template.format(ref=ref) + path
        async with httpx.AsyncClient(timeout=60) as client:
            return await client.get(url, headers=headers)


Start = Callable[..., AbstractAsyncContextManager[SimulatorInTest]]


@pytest.fixture
def start(server_dsn: str) -> Start:
    """Return a function that starts a simulator whose clock stands still."""

    @asynccontextmanager
    async def starting(
        *, middleware: tuple[Any, ...] = (), **settings: Any
    ) -> AsyncIterator[SimulatorInTest]:
        clock = Clock()
        chosen = SimulatorSettings(admin_dsn=server_dsn, clock=clock, **settings)
        async with (
            running_simulator(chosen, middleware=middleware) as simulator,
            httpx.AsyncClient(
                base_url=simulator.url,
                headers={"authorization": f"Bearer {simulator.token}"},
                timeout=TIMEOUT.total_seconds(),
            ) as client,
        ):
            yield SimulatorInTest(simulator, client, clock)

    return starting
