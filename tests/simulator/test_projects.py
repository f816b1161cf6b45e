"""Projects over HTTP: tokens, refusals, how a project comes up and is listed."""

from __future__ import annotations

from typing import Any

import pytest

from pgworker.simulator import Organization

ORGANIZATION = Organization().slug
BODY = {"name": "acme", "organization_slug": ORGANIZATION, "db_pass": "correct-horse"}


# -- tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer sbp_wrong", "Basic abc"])
async def test_without_the_token_everything_answers_401(start: Any, given: str) -> None:
    async with start() as sim:
        response = await sim.client.get("/v1/organizations", headers={"authorization": given})
        assert response.status_code == 401
        assert response.json() == {"message": "Unauthorized"}


async def test_a_token_without_the_scope_answers_403(start: Any) -> None:
    scoped = {"sbp_reader": frozenset({"projects:read", "organizations:read"})}
    async with start(scoped_tokens=scoped) as sim:
        sim.client.headers["authorization"] = "Bearer sbp_reader"
        assert (await sim.client.get("/v1/projects")).status_code == 200
        refused = await sim.client.post("/v1/projects", json=BODY)
        assert refused.status_code == 403
        assert sim.simulator.ledger.created == []


async def test_an_unknown_ref_slug_or_path_answers_404_with_a_message(start: Any) -> None:
    async with start() as sim:
        for path in (f"/v1/projects/{'z' * 20}", "/v1/organizations/unknown", "/v1/nothing"):
            response = await sim.client.get(path)
            assert response.status_code == 404
            assert response.json()["message"]


# -- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"surprise": 1}, "surprise"),
        ({"name": "with.dot"}, "name"),
        ({"name": "x" * 257}, "name"),
        ({"name": None}, "name"),
        ({"name": 5}, "name"),
        ({"db_pass": "abc"}, "db_pass"),
        ({"organization_slug": "not a slug"}, "organization_slug"),
        ({"region": "moon-1"}, "region"),
        ({"region_selection": {"type": "specific", "code": "moon-1"}}, "region_selection"),
        ({"region_selection": {"type": "smartGroup", "code": "eu-west-1"}}, "region_selection"),
        ({"region_selection": {"code": "eu-west-1"}}, "region_selection"),
        (
            {
                "region": "eu-west-1",
                "region_selection": {"type": "specific", "code": "eu-west-1"},
            },
            "region_selection",
        ),
        ({"desired_instance_size": "huge"}, "desired_instance_size"),
        ({"template_url": "nonsense"}, "template_url"),
    ],
)
async def test_a_create_that_violates_the_schema_is_refused_by_name(
    start: Any, change: dict[str, Any], named: str
) -> None:
    async with start() as sim:
        response = await sim.client.post("/v1/projects", json=BODY | change)
        assert response.status_code == 400
        assert named in response.json()["message"]
        assert "correct-horse" not in response.text
        assert sim.simulator.ledger.created == []


@pytest.mark.parametrize("missing", ["name", "organization_slug", "db_pass"])
async def test_a_create_without_a_required_field_is_refused(start: Any, missing: str) -> None:
    async with start() as sim:
        body = {name: value for name, value in BODY.items() if name != missing}
        response = await sim.client.post("/v1/projects", json=body)
        assert response.status_code == 400
        assert missing in response.json()["message"]


async def test_a_body_that_is_not_json_is_refused(start: Any) -> None:
    async with start() as sim:
        broken = await sim.client.post(
            "/v1/projects", content=b"{", headers={"content-type": "application/json"}
        )
        form = await sim.client.post("/v1/projects", data=BODY)
        assert (broken.status_code, form.status_code) == (400, 415)


@pytest.mark.parametrize("mode", ["refused", "accepted"])
async def test_a_second_project_of_a_name_is_refused_or_accepted_as_chosen(
    start: Any, mode: str
) -> None:
    async with start(duplicate_names=mode) as sim:
        await sim.create("acme")
        second = await sim.client.post("/v1/projects", json=BODY)
        if mode == "refused":
            assert second.status_code == 400
            assert "already exists in your organization" in second.json()["message"]
        else:
            assert second.status_code == 201
            assert sim.simulator.ledger.creates_by_name["acme"] == 2


async def test_a_project_above_the_quota_is_refused(start: Any) -> None:
    async with start(max_projects=1, quota_status=402) as sim:
        ref = await sim.create("first")
        refused = await sim.client.post("/v1/projects", json=BODY)
        assert refused.status_code == 402
        assert "active free projects" in refused.json()["message"]
        await sim.client.post(f"/v1/projects/{ref}/pause")
        assert (await sim.client.post("/v1/projects", json=BODY)).status_code == 201


# -- how a project comes up -------------------------------------------------------------------


async def status_of(sim: Any, ref: str) -> str:
    return str((await sim.client.get(f"/v1/projects/{ref}")).json()["status"])


async def test_a_project_is_unknown_then_coming_up_then_healthy_and_its_services_lag(
    start: Any,
) -> None:
    async with start(coming_up_seconds=60, services_lag_seconds=30, pooler_lag_seconds=50) as sim:
        created = (await sim.client.post("/v1/projects", json=BODY)).json()
        ref = created["ref"]
        services = {"services": ["db", "rest", "pooler"]}

        async def health() -> list[str]:
            answer = await sim.client.get(f"/v1/projects/{ref}/health", params=services)
            return [service["status"] for service in answer.json()]

        assert created["status"] == "UNKNOWN"
        assert await status_of(sim, ref) == "COMING_UP"
        assert await health() == ["COMING_UP"] * 3
        sim.clock.advance(60)
        assert await status_of(sim, ref) == "ACTIVE_HEALTHY"
        assert await health() == ["ACTIVE_HEALTHY", "UNHEALTHY", "UNHEALTHY"]
        sim.clock.advance(30)
        assert await health() == ["ACTIVE_HEALTHY", "ACTIVE_HEALTHY", "UNHEALTHY"]
        sim.clock.advance(20)
        assert await health() == ["ACTIVE_HEALTHY"] * 3


async def test_health_requires_repeated_services(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        for query in ("", "?services=db,rest", "?services=nonsense", "?services=db&timeout_ms=-1"):
            response = await sim.client.get(f"/v1/projects/{ref}/health{query}")
            assert response.status_code == 400
            assert response.json()["message"]


async def test_a_starting_project_takes_no_query_key_request_or_delete(start: Any) -> None:
    async with start(coming_up_seconds=60) as sim:
        ref = await sim.create()
        deleted = await sim.client.delete(f"/v1/projects/{ref}")
        assert (deleted.status_code, deleted.json()["message"]) == (
            400,
            "Project not ready for deletion.",
        )
        assert (await sim.query(ref, "select 1")).status_code == 400
        assert (await sim.client.get(f"/v1/projects/{ref}/api-keys")).status_code == 400


async def test_pause_restore_and_delete_pass_through_their_statuses(start: Any) -> None:
    async with start(transition_seconds=5) as sim:
        ref = await sim.create()
        seen = []
        for method, path in (("POST", "/pause"), ("POST", "/restore"), ("DELETE", "")):
            response = await sim.client.request(method, f"/v1/projects/{ref}{path}")
            assert response.status_code == 200
            seen.append(await status_of(sim, ref))
            sim.clock.advance(5)
            if method == "POST":
                seen.append(await status_of(sim, ref))
        assert seen == ["PAUSING", "INACTIVE", "RESTORING", "ACTIVE_HEALTHY", "GOING_DOWN"]
        assert (await sim.client.get(f"/v1/projects/{ref}")).status_code == 404
        assert (await sim.client.post(f"/v1/projects/{ref}/pause")).status_code == 404


async def test_pausing_a_paused_project_is_refused(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        await sim.client.post(f"/v1/projects/{ref}/pause")
        assert (await sim.client.post(f"/v1/projects/{ref}/pause")).status_code == 400


# -- how it is listed -------------------------------------------------------------------------


async def test_pages_count_everything_and_hold_each_project_once(start: Any) -> None:
    async with start() as sim:
        for number in range(5):
            sim.simulator.projects.plant(f"p{number}")
        pages = [await sim.listing(limit=2, offset=offset) for offset in (0, 2, 4, 6)]
        assert [len(page["projects"]) for page in pages] == [2, 2, 1, 0]
        assert {page["pagination"]["count"] for page in pages} == {5}
        names = [project["name"] for page in pages for project in page["projects"]]
        assert names == ["p0", "p1", "p2", "p3", "p4"]


async def test_search_finds_look_alikes_and_branches_too(start: Any) -> None:
    async with start() as sim:
        for name in ("acme", "acme-2", "ACME", "my-acme", "other"):
            sim.simulator.projects.plant(name)
        sim.simulator.projects.plant("acme", is_branch=True)
        found = (await sim.listing(search="acme"))["projects"]
        assert sorted(project["name"] for project in found) == [
            "ACME",
            "acme",
            "acme",
            "acme-2",
            "my-acme",
        ]
        assert [project["is_branch"] for project in found].count(True) == 1


async def test_projects_are_sorted_as_requested(start: Any) -> None:
    async with start() as sim:
        for name in ("b", "a", "c"):
            sim.simulator.projects.plant(name)
        orders = [
            "".join(await sim.listed_names(sort=sort))
            for sort in ("name_asc", "name_desc", "created_asc", "created_desc")
        ]
        assert orders == ["abc", "cba", "bac", "cab"]


async def test_a_wrong_page_is_refused(start: Any) -> None:
    async with start() as sim:
        path = f"/v1/organizations/{ORGANIZATION}/projects"
        for query in ("limit=0", "limit=101", "offset=-1", "sort=size", "statuses=COMING_UP"):
            assert (await sim.client.get(f"{path}?{query}")).status_code == 400


async def test_a_listing_lags_after_create_and_after_delete(start: Any) -> None:
    async with start(listing_lag_seconds=10) as sim:
        ref = await sim.create("late")
        assert await status_of(sim, ref) == "ACTIVE_HEALTHY"
        assert await sim.listed_names() == []
        sim.clock.advance(10)
        assert await sim.listed_names() == ["late"]
        await sim.client.delete(f"/v1/projects/{ref}")
        sim.clock.advance(9)
        assert await sim.listed_names() == ["late"]
        sim.clock.advance(1)
        assert await sim.listed_names() == []


async def test_a_name_is_in_use_before_the_listing_shows_it(start: Any) -> None:
    async with start(listing_lag_seconds=10) as sim:
        await sim.create("acme")
        assert await sim.listed_names() == []
        assert (await sim.client.post("/v1/projects", json=BODY)).status_code == 400


# -- rate limits ------------------------------------------------------------------------------


async def test_each_project_and_endpoint_has_a_limit_of_its_own(start: Any) -> None:
    async with start(rate_limit=2, rate_window_seconds=60) as sim:
        first, second = (sim.simulator.projects.plant(name).ref for name in "ab")
        path = f"/v1/projects/{first}"
        remaining = []
        for _ in range(3):
            response = await sim.client.get(path)
            remaining.append((response.status_code, response.headers["x-ratelimit-remaining"]))
            sim.clock.advance(10)
        assert remaining == [(200, "1"), (200, "0"), (429, "0")]
        assert response.headers["x-ratelimit-reset"] == "40"
        assert (await sim.client.get(f"/v1/projects/{second}")).status_code == 200
        assert (await sim.client.get(f"{path}/health?services=db")).status_code == 200
        sim.clock.advance(30)
        assert (await sim.client.get(path)).status_code == 200


async def test_creates_count_against_their_organization_and_a_refused_one_does_nothing(
    start: Any,
) -> None:
    organizations = (Organization(), Organization(slug="second"))
    async with start(rate_limit=1, organizations=organizations) as sim:
        await sim.create("one")
        throttled = await sim.client.post("/v1/projects", json=BODY)
        assert throttled.status_code == 429
        await sim.create("two", organization_slug="second")
        assert [project.name for project in sim.simulator.ledger.created] == ["one", "two"]


# -- keys -------------------------------------------------------------------------------------


async def test_only_secret_keys_are_masked_without_reveal(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        masked, revealed = await sim.keys(ref, reveal="false"), await sim.keys(ref)
        differs = [a["type"] for a, b in zip(masked, revealed, strict=True) if a != b]
        assert differs == ["secret"]
        assert "·" in masked[-1]["api_key"]
        assert masked[-1]["api_key"].startswith(masked[-1]["prefix"])
        assert revealed[-1]["api_key"].startswith("sb_secret_")


@pytest.mark.parametrize(
    ("kinds", "types"),
    [
        ("both", ["legacy", "legacy", "publishable", "secret"]),
        ("new", ["publishable", "secret"]),
        ("legacy", ["legacy", "legacy"]),
    ],
)
async def test_a_project_has_the_kinds_of_keys_that_were_chosen(
    start: Any, kinds: str, types: list[str]
) -> None:
    async with start(key_kinds=kinds) as sim:
        ref = await sim.create()
        assert [key["type"] for key in await sim.keys(ref)] == types
        legacy = await sim.client.get(f"/v1/projects/{ref}/api-keys/legacy")
        assert legacy.json() == {"enabled": "legacy" in types}


async def test_keys_named_default_and_a_secret_that_is_not_service_role(start: Any) -> None:
    async with start(key_kinds="new", foreign_secret_key=True) as sim:
        keys = await sim.keys(await sim.create())
        assert [(key["name"], key["type"]) for key in keys] == [
            ("reporting", "secret"),
            ("default", "publishable"),
            ("default", "secret"),
        ]
        roles = [key["secret_jwt_template"] for key in keys]
        assert roles == [{"role": "authenticated"}, None, {"role": "service_role"}]


async def test_keys_answer_400_for_a_while_after_the_project_is_healthy(start: Any) -> None:
    async with start(keys_lag_seconds=5) as sim:
        ref = await sim.create()
        assert (await sim.client.get(f"/v1/projects/{ref}/api-keys")).status_code == 400
        sim.clock.advance(5)
        assert (await sim.client.get(f"/v1/projects/{ref}/api-keys")).status_code == 200


async def test_creating_a_key_is_not_idempotent(start: Any) -> None:
    async with start(key_kinds="legacy") as sim:
        ref = await sim.create()
        body = {"type": "secret", "name": "pgworker"}
        for _ in range(2):
            made = await sim.client.post(f"/v1/projects/{ref}/api-keys?reveal=true", json=body)
            assert made.status_code == 201
        assert [key["name"] for key in await sim.keys(ref)][2:] == ["pgworker", "pgworker"]
        body["name"] = "Not allowed"
        refused = await sim.client.post(f"/v1/projects/{ref}/api-keys", json=body)
        assert refused.status_code == 400


# -- the rest ---------------------------------------------------------------------------------


async def test_migrations_are_for_partners_only(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        response = await sim.client.get(f"/v1/projects/{ref}/database/migrations")
        assert response.status_code == 403


async def test_a_deleted_project_answers_with_an_undocumented_field(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        deleted = await sim.client.delete(f"/v1/projects/{ref}")
        assert deleted.json().keys() == {"id", "ref", "name", "slug"}


async def test_the_ledger_holds_no_secret(start: Any) -> None:
    async with start() as sim:
        ref = await sim.create()
        keys = await sim.keys(ref)
        await sim.data_api(ref, f"/rest/v1/?apikey={keys[-1]['api_key']}")
        await sim.client.patch(
            f"/v1/projects/{ref}/database/password", json={"password": "another-secret"}
        )
        text = (await sim.client.get("/__simulator__/ledger")).text
        secrets = [key["api_key"] for key in keys]
        secrets += ["correct-horse", "another-secret", sim.simulator.token]
        assert [secret for secret in secrets if secret in text] == []
        assert repr(sim.simulator.projects.all()).find("sb_secret") == -1
        assert "another-secret" not in repr(sim.simulator.projects.all())
