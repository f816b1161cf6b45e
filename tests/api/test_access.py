"""Which callers are admitted, and what each may do."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from fastapi import Response
from starlette.requests import Request

from pgworker.api.sessions import COOKIE, Sessions
from pgworker.models import Scope
from tests.support.api import BASE_URL, LOCAL_URL, TOKENS
from tests.support.api_scopes import REQUIRED_SCOPES

if TYPE_CHECKING:
    from tests.support.api import ApiInTest

BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/clients"): {"name": "Acme"},
    ("POST", "/admin/provisioning/pause"): {"scope": "all"},
    ("POST", "/admin/provisioning/resume"): {"scope": "all"},
}


def filled(path: str) -> str:
    return path.format(client_id=uuid4(), group_id="0" * 16)


async def ask(client: httpx.AsyncClient, route: tuple[str, str], **options: Any) -> httpx.Response:
    method, path = route
    return await client.request(method, filled(path), json=BODIES.get(route), **options)


# -- tokens -----------------------------------------------------------------------------------


async def test_every_route_of_the_reference_has_its_scope_here(api: ApiInTest) -> None:
    routes = {
        (method.upper(), path)
        for path, methods in api.app.openapi()["paths"].items()
        for method in methods
    }
    assert routes == set(REQUIRED_SCOPES)


@pytest.mark.parametrize("scope", [None, *Scope])
async def test_every_route_refuses_callers_without_its_scope_and_no_others(
    api: ApiInTest, scope: Scope | None
) -> None:
    client = await api.client(scope)
    # A stream would go on; a process that leaves opens none.
    api.service.feed.close()
    for route, needed in REQUIRED_SCOPES.items():
        answer = await ask(client, route)
        if needed is None or (scope is not None and scope.includes(needed)):
            assert answer.status_code not in {401, 403}, (route, answer.text)
            continue
        assert answer.status_code == (401 if scope is None else 403), (route, answer.text)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["detail"]


async def test_a_refused_write_does_nothing(api: ApiInTest) -> None:
    reader = await api.client(Scope.READ)
    await reader.post("/clients", json={"name": "Acme"})
    await reader.post("/admin/provisioning/pause", json={})
    assert await api.jobs.pool.fetchval("select count(*) from clients") == 0
    assert await api.jobs.pool.fetchval("select count(*) from pgworker.pauses") == 0


async def test_a_caller_without_a_token_is_asked_to_send_one(api: ApiInTest) -> None:
    refused = await (await api.client(None)).get("/clients")
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert "Bearer TOKEN" in refused.json()["detail"]


@pytest.mark.parametrize(
    "sent", ["Bearer nonsense", "Bearer", f"Basic {TOKENS[Scope.ADMIN]}", TOKENS[Scope.ADMIN], ""]
)
async def test_what_is_not_a_token_is_refused(api: ApiInTest, sent: str) -> None:
    client = await api.client(None)
    refused = await client.get("/clients", headers={"Authorization": sent})
    assert refused.status_code == 401


async def test_the_audit_trail_names_the_person_for_whom_it_was_done(api: ApiInTest) -> None:
    operator = await api.client(Scope.OPERATE)
    ordered = await operator.post("/clients", json={"name": "Acme"})
    await operator.post(f"{ordered.json()['url']}/provisioning/cancel")
    actors = await api.jobs.pool.fetch("select distinct actor from pgworker.events")
    (actor,) = [row["actor"] for row in actors]
    assert actor.startswith("sql:")
    assert actor.endswith(" for operater")


# -- this machine -----------------------------------------------------------------------------


async def test_without_a_token_configured_this_machine_may_do_everything(
    local_api: ApiInTest, local: httpx.AsyncClient
) -> None:
    local_api.service.feed.close()
    for route in REQUIRED_SCOPES:
        answer = await ask(local, route)
        assert answer.status_code not in {401, 403}, (route, answer.text)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil", "192.0.2.1", "[::1", ""])
async def test_without_a_token_a_foreign_name_for_this_machine_is_refused(
    local: httpx.AsyncClient, host: str
) -> None:
    refused = await local.get("/clients", headers={"Host": host})
    assert refused.status_code == 403


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
async def test_without_a_token_a_request_through_a_proxy_is_refused(
    local: httpx.AsyncClient, header: str
) -> None:
    assert (await local.get("/clients", headers={header: "127.0.0.1"})).status_code == 403


async def test_without_a_token_another_machine_is_refused(local_api: ApiInTest) -> None:
    transport = httpx.ASGITransport(local_api.app, client=("192.0.2.7", 1234))
    async with httpx.AsyncClient(transport=transport, base_url=LOCAL_URL) as client:
        assert (await client.get("/clients")).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[::1"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        # A page of ours, but without its token.
        {"Origin": LOCAL_URL},
    ],
)
async def test_without_a_token_a_foreign_page_cannot_write(
    local_api: ApiInTest, local: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    refused = await local.post("/clients", json={"name": "Acme"}, headers=headers)
    assert refused.status_code == 403
    assert await local_api.jobs.pool.fetchval("select count(*) from clients") == 0


async def test_without_a_token_a_page_of_ours_can_write(
    local_api: ApiInTest, local: httpx.AsyncClient
) -> None:
    csrf = local_api.service.sessions.local_csrf_token
    headers = {"Origin": LOCAL_URL, "Sec-Fetch-Site": "same-origin", "X-CSRF-Token": csrf}
    done = await local.post("/clients", json={"name": "Acme"}, headers=headers)
    assert done.status_code == 201, done.text


# -- people who signed in ---------------------------------------------------------------------


def cookie_of(sessions: Sessions, scope: Scope = Scope.OPERATE, *, scheme: str = "http") -> str:
    """Sign in; return the header that sets the cookie."""
    token = sessions.find_token(TOKENS[scope])
    assert token is not None
    response = Response()
    request = Request(
        {"type": "http", "scheme": scheme, "server": ("x", 80), "path": "/", "headers": []}
    )
    sessions.start(token, request, response)
    return response.headers["Set-Cookie"]


def value_of(set_cookie: str) -> str:
    return set_cookie.partition(f"{COOKIE}=")[2].partition(";")[0]


def signed_in(api: ApiInTest, scope: Scope = Scope.OPERATE) -> tuple[dict[str, str], str]:
    """Return the headers of a browser that has signed in, and its CSRF token."""
    cookie = value_of(cookie_of(api.service.sessions, scope))
    principal = api.service.sessions.get_principal(cookie)
    assert principal is not None
    return {"Cookie": f"{COOKIE}={cookie}", "Origin": BASE_URL}, principal.csrf_token


def test_the_cookie_is_for_the_server_of_this_site_only(api: ApiInTest) -> None:
    cookie = cookie_of(api.service.sessions)
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie.split("; ")
    assert "Secure" in cookie_of(api.service.sessions, scheme="https").split("; ")
    assert TOKENS[Scope.OPERATE] not in cookie


async def test_a_person_who_signed_in_may_do_what_their_token_may(api: ApiInTest) -> None:
    client = await api.client(None)
    headers, csrf = signed_in(api, Scope.READ)
    assert (await client.get("/clients", headers=headers)).status_code == 200
    refused = await client.post(
        "/clients", json={"name": "Acme"}, headers={**headers, "X-CSRF-Token": csrf}
    )
    assert refused.status_code == 403


async def test_a_signed_in_browser_writes_with_its_csrf_token_only(api: ApiInTest) -> None:
    client = await api.client(None)
    headers, csrf = signed_in(api)
    _, other = signed_in(api)

    async def order(**more: str) -> int:
        sent = {**headers, **more}
        return (await client.post("/clients", json={"name": "A"}, headers=sent)).status_code

    assert await order() == 403
    assert await order(**{"X-CSRF-Token": other}) == 403
    assert await order(**{"X-CSRF-Token": csrf, "Origin": "http://evil.example"}) == 403
    assert await order(**{"X-CSRF-Token": csrf}) == 201


async def test_a_form_carries_its_csrf_token_as_a_field(api: ApiInTest) -> None:
    client = await api.client(None)
    headers, csrf = signed_in(api)
    path = f"/clients/{uuid4()}/provisioning/retry"
    without = await client.post(path, data={"x": "y"}, headers=headers)
    assert without.status_code == 403
    carried = await client.post(path, data={"csrf_token": csrf}, headers=headers)
    assert carried.status_code == 404


async def test_a_forged_or_foreign_cookie_is_refused(api: ApiInTest) -> None:
    client = await api.client(None)
    foreign = Sessions([b"k" * 32], api.service.platform.settings.api_tokens, timedelta(hours=1))
    good = value_of(cookie_of(api.service.sessions))
    for cookie in (value_of(cookie_of(foreign)), good[:-2], f"x{good}", "", "a.b.c"):
        headers = {"Cookie": f"{COOKIE}={cookie}"}
        assert (await client.get("/clients", headers=headers)).status_code == 401


def test_a_cookie_ends_with_its_token_and_with_its_time(api: ApiInTest) -> None:
    keys = api.service.platform.session_keys()
    tokens = api.service.platform.settings.api_tokens
    cookie = value_of(cookie_of(Sessions(keys, tokens, timedelta(hours=1))))

    assert Sessions(keys, tokens, timedelta(hours=1)).get_principal(cookie) is not None
    assert Sessions(keys, tokens[:1], timedelta(hours=1)).get_principal(cookie) is None
    assert Sessions(keys, tokens, timedelta(seconds=-2)).get_principal(cookie) is None


def test_a_cookie_outlives_a_rotated_key_as_long_as_the_old_one_is_kept(api: ApiInTest) -> None:
    tokens = api.service.platform.settings.api_tokens
    old, new = b"o" * 32, b"n" * 32
    cookie = value_of(cookie_of(Sessions([old], tokens, timedelta(hours=1))))

    assert Sessions([new, old], tokens, timedelta(hours=1)).get_principal(cookie) is not None
    assert Sessions([new], tokens, timedelta(hours=1)).get_principal(cookie) is None


# -- what browsers get ------------------------------------------------------------------------


async def test_every_answer_keeps_browsers_from_harm(admin: httpx.AsyncClient) -> None:
    for path in (
        "/healthz",
        "/clients",
        f"/clients/{uuid4()}",
        "/nothing/here",
        "/clients?limit=0",
    ):
        headers = (await admin.get(path)).headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path
        assert headers["X-Content-Type-Options"] == "nosniff", path


async def test_a_browser_that_is_not_signed_in_is_led_to_the_sign_in_page(api: ApiInTest) -> None:
    client = await api.client(None)
    led = await client.get("/admin/provisioning", headers={"Accept": "text/html"})
    assert (led.status_code, led.headers["Location"]) == (303, "/admin/provisioning/sign-in")


async def test_an_address_names_all_the_methods_that_it_takes(admin: httpx.AsyncClient) -> None:
    refused = await admin.delete("/clients")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, POST")
    assert refused.headers["Content-Type"] == "application/problem+json"
