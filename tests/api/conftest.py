"""The API over a fresh database, with a token of each scope, or with none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.api import LOCAL_URL, ApiInTest, running_api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx


@pytest.fixture
async def api(database: str) -> AsyncIterator[ApiInTest]:
    async with running_api(database) as running:
        yield running


@pytest.fixture
async def local_api(database: str) -> AsyncIterator[ApiInTest]:
    """No token is configured."""
    async with running_api(database, tokens=None) as running:
        yield running


@pytest.fixture
async def admin(api: ApiInTest) -> httpx.AsyncClient:
    return await api.client()


@pytest.fixture
async def local(local_api: ApiInTest) -> httpx.AsyncClient:
    """A program on this machine, where no token is configured."""
    return await local_api.client(None, base_url=LOCAL_URL)
