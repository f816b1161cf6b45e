"""Each project's Data API: what each key can read."""

from __future__ import annotations

from typing import Any

import pytest

TABLE = "/rest/v1/notes?select=*&limit=1"


async def keys_by_kind(sim: Any, ref: str) -> dict[str, str]:
    return {
        key["name"] if key["type"] == "legacy" else key["type"]: key["api_key"]
        for key in await sim.keys(ref)
    }


async def project_with_a_table(sim: Any) -> tuple[str, dict[str, str]]:
    ref = await sim.create()
    made = await sim.query(
        ref,
        "create table public.notes (id int); insert into public.notes values (1), (2);"
        "create table public.closed (id int);"
        "grant select on public.notes to anon, service_role",
    )
    assert made.status_code == 201
    return ref, await keys_by_kind(sim, ref)


@pytest.mark.parametrize("kind", ["anon", "service_role", "publishable", "secret"])
async def test_a_granted_table_is_read_with_any_kind_of_key(start: Any, kind: str) -> None:
    async with start() as sim:
        ref, keys = await project_with_a_table(sim)
        response = await sim.data_api(ref, TABLE, apikey=keys[kind])
        assert (response.status_code, response.json()) == (200, [{"id": 1}])


async def test_row_level_security_holds_for_anon_and_not_for_service_role(start: Any) -> None:
    async with start() as sim:
        ref, keys = await project_with_a_table(sim)
        await sim.query(ref, "alter table public.notes enable row level security")
        anon = await sim.data_api(ref, TABLE, apikey=keys["publishable"])
        elevated = await sim.data_api(ref, TABLE, apikey=keys["secret"])
        assert (anon.json(), elevated.json()) == ([], [{"id": 1}])


@pytest.mark.parametrize(
    ("kind", "status"),
    [("anon", 401), ("publishable", 401), ("service_role", 403), ("secret", 403)],
)
async def test_a_table_without_grant_is_refused_with_42501(
    start: Any, kind: str, status: int
) -> None:
    async with start() as sim:
        ref, keys = await project_with_a_table(sim)
        response = await sim.data_api(ref, "/rest/v1/closed", apikey=keys[kind])
        assert response.status_code == status
        assert response.json() == {
            "code": "42501",
            "details": None,
            "hint": None,
            "message": "permission denied for table closed",
        }


async def test_an_unknown_table_is_404_with_pgrst205(start: Any) -> None:
    async with start() as sim:
        ref, keys = await project_with_a_table(sim)
        response = await sim.data_api(ref, "/rest/v1/nowhere", apikey=keys["anon"])
        assert (response.status_code, response.json()["code"]) == (404, "PGRST205")


@pytest.mark.parametrize("path", [TABLE, "/rest/v1/", "/auth/v1/health"])
async def test_without_or_with_a_wrong_key_everything_is_401(start: Any, path: str) -> None:
    async with start() as sim:
        ref, keys = await project_with_a_table(sim)
        other = await keys_by_kind(sim, await sim.create("other"))
        for headers in ({}, {"apikey": "sb_secret_wrong"}, {"apikey": other["anon"]}):
            assert (await sim.data_api(ref, path, **headers)).status_code == 401
        assert (await sim.data_api(ref, path, apikey=keys["anon"])).status_code == 200


async def test_keys_of_the_new_kinds_are_no_bearer_tokens(start: Any) -> None:
    async with start() as sim:
        ref, keys = await project_with_a_table(sim)

        async def status(kind: str) -> int:
            key = keys[kind]
            headers = {"apikey": key, "authorization": f"Bearer {key}"}
            return int((await sim.data_api(ref, TABLE, **headers)).status_code)

        assert [await status(kind) for kind in ("anon", "publishable", "secret")] == [200, 401, 401]


async def test_the_root_describes_what_is_exposed(start: Any) -> None:
    async with start() as sim:
        ref, keys = await project_with_a_table(sim)
        response = await sim.data_api(ref, "/rest/v1/", apikey=keys["secret"])
        assert set(response.json()["paths"]) == {"/", "/notes", "/closed"}


async def test_services_that_lag_or_are_paused_do_not_answer(start: Any) -> None:
    async with start(services_lag_seconds=5) as sim:
        ref = await sim.create()
        keys = await keys_by_kind(sim, ref)
        for path in ("/rest/v1/", "/auth/v1/health"):
            assert (await sim.data_api(ref, path, apikey=keys["anon"])).status_code == 503
        sim.clock.advance(5)
        assert (await sim.data_api(ref, "/rest/v1/", apikey=keys["anon"])).status_code == 200
        await sim.client.post(f"/v1/projects/{ref}/pause")
        assert (await sim.data_api(ref, "/rest/v1/", apikey=keys["anon"])).status_code == 540


async def test_an_unknown_project_has_no_host(start: Any) -> None:
    async with start() as sim:
        assert (await sim.data_api("z" * 20, "/rest/v1/", apikey="x")).status_code == 530
