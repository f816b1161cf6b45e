"""The HTTP API in-process, over a fresh database."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from pgworker.api import create_app
from pgworker.api.service import Service
from pgworker.context import open_platform
from pgworker.models import Scope
from pgworker.settings import load_settings
from tests.support.jobs import JobsInTest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI

KEY = "test:" + "A" * 43 + "="
TOKENS = {scope: f"a-token-with-scope-{scope}" for scope in Scope}
SETTING = ",".join(f"{scope}r:{scope}:{token}" for scope, token in TOKENS.items())
BASE_URL = "http://pgworker.test"
LOCAL_URL = "http://127.0.0.1:8000"


@dataclass(slots=True)
class ApiInTest:
    """The application, its service, and the queue behind it."""

    app: FastAPI
    service: Service
    jobs: JobsInTest
    stack: AsyncExitStack

    async def client(
        self, scope: Scope | None = Scope.ADMIN, *, base_url: str = BASE_URL
    ) -> httpx.AsyncClient:
        """Return a client with a token of this scope, or without a token."""
        headers = {} if scope is None else {"Authorization": f"Bearer {TOKENS[scope]}"}
        # An unexpected error is raised in the test instead of a response with 500.
        transport = httpx.ASGITransport(self.app)
        return await self.stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url=base_url, headers=headers)
        )


@asynccontextmanager
async def running_api(dsn: str, *, tokens: str | None = SETTING) -> AsyncIterator[ApiInTest]:
    """Run the API over a migrated database, without a worker; `tokens` is its setting."""
    settings = load_settings(
        DATABASE_URL=dsn, PGWORKER_ENCRYPTION_KEYS=KEY, PGWORKER_API_TOKENS=tokens or ""
    )
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(open_platform(settings))
        service = Service.from_platform(platform)
        yield ApiInTest(create_app(service), service, JobsInTest(platform.pool), stack)
