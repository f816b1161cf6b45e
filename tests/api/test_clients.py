"""The clients' routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

    from tests.support.api import ApiInTest


async def test_an_ordered_client_is_provisioned(admin: httpx.AsyncClient, api: ApiInTest) -> None:
    ordered = await admin.post("/clients", json={"name": "Acme"})
    assert ordered.status_code == 201, ordered.text
    shown = await admin.get(ordered.headers["Location"])
    assert shown.status_code == 200, shown.text
    assert shown.json()["provisioning_status"] == "queued"
    for path in ("/clients", "/clients/provisioning/jobs", "/admin/provisioning"):
        got = await admin.get(path)
        assert got.status_code == 200, got.text
        print(got.text)
