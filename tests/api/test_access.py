"""Who is let in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import httpx

    from tests.support.api import ApiInTest


async def test_without_a_token_configured_this_machine_is_served(local: httpx.AsyncClient) -> None:
    assert (await local.get("/clients")).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.0.2.1", ""])
async def test_without_a_token_a_foreign_name_for_this_machine_is_refused(
    local: httpx.AsyncClient, host: str
) -> None:
    refused = await local.get("/clients", headers={"Host": host})
    assert refused.status_code == 403


async def test_whoever_bears_no_token_is_told_to_send_one(api: ApiInTest) -> None:
    client = await api.client(None)
    refused = await client.get("/clients")
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert refused.headers["Content-Type"] == "application/problem+json"
