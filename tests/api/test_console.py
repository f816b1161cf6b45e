"""The console's pages, as their HTML: who sees what, and that nothing in them can run."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest

from pgworker.api.console.assets import ASSETS
from pgworker.models import ErrorKind, Failure, JobStatus, Scope
from tests.support.api import LOCAL_URL, TOKENS
from tests.support.jobs import BACKOFF, BACKOFF_CAP

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from tests.support.api import ApiInTest

CONSOLE = "/admin/provisioning"
HTML = {"Accept": "text/html"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "{{ 7 * 7 }}",
    "</title><style>*{display:none}</style>",
    "‮gnp.exe",
)


class Page(HTMLParser):
    """What of a page could run, or leads elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.inline: list[str] = []
        self.addresses: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.words = ""
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.inline += [
            f"{tag} {name}" for name in given if name.startswith("on") or name == "style"
        ]
        self.addresses += [
            given[name]
            for name in ("src", "href", "action", "hx-get", "sse-connect")
            if name in given
        ]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        if tag == "form":
            self.forms.append(given)
        elif tag == "input" and self.forms and given.get("name"):
            self.forms[-1][f"field {given['name']}"] = given.get("value", "")

    def handle_data(self, data: str) -> None:
        self.words += data

    def form(self, action_ends: str) -> dict[str, str]:
        return next(each for each in self.forms if each.get("action", "").endswith(action_ends))


@pytest.fixture
async def operator(api: ApiInTest) -> httpx.AsyncClient:
    return await signed_in(api, Scope.ADMIN)


async def signed_in(api: ApiInTest, scope: Scope) -> httpx.AsyncClient:
    """Return a browser whose user has signed in with a token of that scope."""
    browser = await api.client(None)
    browser.headers.update(HTML)
    answer = await browser.post(f"{CONSOLE}/sign-in", data={"token": TOKENS[scope]})
    assert (answer.status_code, answer.headers["Location"]) == (303, CONSOLE)
    return browser


async def failed(
    api: ApiInTest, name: str, error: str = "it failed", *, phase: str = "schema_sync"
) -> UUID:
    """Return a client whose job failed in that phase."""
    job_id = await api.jobs.add(name)
    (job,) = await api.jobs.claim()
    await api.jobs.as_worker("worker").fail(
        job,
        Failure(ErrorKind.PERMANENT, error, retry=False),
        backoff=BACKOFF,
        backoff_cap=BACKOFF_CAP,
    )
    await api.jobs.update(job_id, job_type=phase)
    return job.client_id


async def read(browser: httpx.AsyncClient, path: str = "", *, status: int = 200) -> Page:
    answer = await browser.get(CONSOLE + path)
    assert answer.status_code == status, answer.text
    return Page(answer.text)


async def submit(browser: httpx.AsyncClient, form: dict[str, str]) -> httpx.Response:
    """Do what a browser does when a form's button is pressed."""
    fields = {
        name.removeprefix("field "): value
        for name, value in form.items()
        if name.startswith("field ")
    }
    return await browser.post(form["action"], data=fields)


@asynccontextmanager
async def every_page(api: ApiInTest, operator: httpx.AsyncClient) -> AsyncIterator[list[str]]:
    """Yield the address of every page there is, on a platform where something has failed."""
    names = [await failed(api, f"client {number}", "it failed") for number in range(2)]
    (group,) = await api.service.status.list_failed_groups()
    yield [
        "",
        "/clients",
        "/clients?q=&status=failed&phase=&kind=",
        f"/clients/{names[0]}",
        f"/clients/{names[0]}/retry",
        f"/clients/{names[0]}/cancel",
        f"/errors/{group.group_id}",
        f"/errors/{group.group_id}/retry",
        "/sign-in",
    ]


# -- getting in -------------------------------------------------------------------------------


async def test_a_browser_that_has_not_signed_in_is_led_to_the_sign_in_page(api: ApiInTest) -> None:
    browser = await api.client(None)
    for path in ("", "/clients", f"/clients/{uuid4()}"):
        answer = await browser.get(CONSOLE + path, headers=HTML)
        assert (answer.status_code, answer.headers["Location"]) == (303, f"{CONSOLE}/sign-in")


async def test_a_wrong_token_opens_nothing(api: ApiInTest) -> None:
    browser = await api.client(None)
    answer = await browser.post(f"{CONSOLE}/sign-in", data={"token": "wrong"}, headers=HTML)
    assert answer.status_code == 401
    assert "There is no such token" in answer.text
    assert "set-cookie" not in answer.headers


async def test_a_browser_gets_the_console_and_a_program_json(admin: httpx.AsyncClient) -> None:
    page = await admin.get(CONSOLE, headers=HTML)
    data = await admin.get(CONSOLE, headers={"Accept": "application/json"})
    assert page.headers["Content-Type"].startswith("text/html")
    assert data.headers["Content-Type"].startswith("application/json")


async def test_signing_out_removes_the_cookie(operator: httpx.AsyncClient) -> None:
    page = await read(operator)
    answer = await submit(operator, page.form("/sign-out"))
    assert answer.headers["Location"] == f"{CONSOLE}/sign-in"
    assert (await operator.get(CONSOLE)).status_code == 303


async def test_on_this_machine_no_sign_in_is_needed_while_no_token_is_configured(
    local_api: ApiInTest,
) -> None:
    browser = await local_api.client(None, base_url=LOCAL_URL)
    browser.headers.update(HTML | {"Origin": LOCAL_URL})
    page = await read(browser)
    assert not [form for form in page.forms if form.get("action", "").endswith("/sign-out")]
    assert (await browser.post(f"{CONSOLE}/everything/pause")).status_code == 403
    await submit(browser, page.form("/pause"))
    assert [row.scope for row in await local_api.service.status.list_pauses()] == ["all"]


async def test_attempts_to_sign_in_are_limited(api: ApiInTest) -> None:
    browser = await api.client(None)
    statuses = [
        (
            await browser.post(f"{CONSOLE}/sign-in", data={"token": "guess"}, headers=HTML)
        ).status_code
        for _ in range(11)
    ]
    assert statuses == [401] * 10 + [429]


# -- nothing can run --------------------------------------------------------------------------


async def test_no_page_holds_anything_inline_or_asks_another_server(
    api: ApiInTest, operator: httpx.AsyncClient
) -> None:
    async with every_page(api, operator) as paths:
        for path in paths:
            page = await read(operator, path)
            assert page.inline == [], path
            assert [each for each in page.addresses if urlsplit(each).netloc] == [], path


async def test_every_page_forbids_what_it_does_not_need(
    api: ApiInTest, operator: httpx.AsyncClient
) -> None:
    async with every_page(api, operator) as paths:
        for path in paths:
            headers = (await operator.get(CONSOLE + path)).headers
            policy = headers["Content-Security-Policy"].split("; ")
            assert "default-src 'none'" in policy
            assert "script-src 'self'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in headers["Content-Security-Policy"]
            assert headers["Cache-Control"] == "no-store"
            assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_name_is_shown_as_it_is_and_does_nothing(
    api: ApiInTest, operator: httpx.AsyncClient, name: str
) -> None:
    client_id = await failed(api, name, error=name)
    (group,) = await api.service.status.list_failed_groups()
    for path in (
        "",
        "/clients",
        f"/clients/{client_id}",
        f"/clients/{client_id}/cancel",
        f"/errors/{group.group_id}",
    ):
        page = await read(operator, path)
        assert page.inline == [], path
        assert name in page.words, path


async def test_what_is_searched_for_is_shown_back_inert(operator: httpx.AsyncClient) -> None:
    for text in HOSTILE:
        answer = await operator.get(f"{CONSOLE}/clients", params={"q": text})
        page = Page(answer.text)
        assert page.inline == []
        assert page.forms[-1]["field q"] == text


async def test_a_link_can_put_no_words_of_its_own_on_a_page(operator: httpx.AsyncClient) -> None:
    for query in ("done=<b>hi</b>", "done=retried&n=evil", "done=group-retried&n=%D9%A1x", "n=3"):
        assert 'class="said' not in (await operator.get(f"{CONSOLE}?{query}")).text


async def test_no_secret_is_on_the_page_of_a_client(
    api: ApiInTest, operator: httpx.AsyncClient
) -> None:
    client_id = await failed(api, "Acme")
    await api.service.platform.secrets().put(
        client_id, {"db_password": "the tenant's own password"}
    )
    assert "the tenant" not in (await read(operator, f"/clients/{client_id}")).text


# -- pressing ---------------------------------------------------------------------------------


async def test_a_failed_client_is_retried_by_its_form(
    api: ApiInTest, operator: httpx.AsyncClient
) -> None:
    client_id = await failed(api, "Acme")
    page = await read(operator, f"/clients/{client_id}")

    answer = await submit(operator, page.form("/retry"))

    assert answer.status_code == 303
    assert "Queued again." in (await operator.get(answer.headers["Location"])).text
    assert await status_of(api, client_id) == JobStatus.QUEUED


async def test_a_retry_that_may_cost_money_asks_first(
    api: ApiInTest, operator: httpx.AsyncClient
) -> None:
    client_id = await failed(api, "Acme", phase="create_project")
    page = await read(operator, f"/clients/{client_id}")
    assert not [form for form in page.forms if form.get("action", "").endswith("/retry")]
    question = await read(operator, f"/clients/{client_id}/retry")
    assert "which the provider bills" in question.words
    assert await status_of(api, client_id) == JobStatus.FAILED

    await submit(operator, question.form("/retry"))

    assert await status_of(api, client_id) == JobStatus.QUEUED


async def test_a_client_is_cancelled_after_a_question(
    api: ApiInTest, operator: httpx.AsyncClient
) -> None:
    client_id = await failed(api, "Acme")
    question = await read(operator, f"/clients/{client_id}/cancel")

    answer = await submit(operator, question.form("/cancel"))

    assert "Cancelled." in (await operator.get(answer.headers["Location"])).text
    assert await status_of(api, client_id) == JobStatus.CANCELLED


async def test_a_group_is_retried_after_a_question_that_names_its_clients(
    api: ApiInTest, operator: httpx.AsyncClient
) -> None:
    ids = [await failed(api, f"client {n}", f"{n} rows are missing") for n in range(14)]
    (group,) = await api.service.status.list_failed_groups()
    question = await read(operator, f"/errors/{group.group_id}/retry")
    assert "Retry 14 clients?" in question.words
    assert "client 13" in question.words
    assert "and 2 more" in question.words

    answer = await submit(operator, question.form("/retry"))

    assert "Queued again: 14 clients." in (await operator.get(answer.headers["Location"])).text
    assert {await status_of(api, each) for each in ids} == {JobStatus.QUEUED}
    again = await submit(operator, question.form("/retry"))
    assert (
        "no client is failed with this error any more"
        in (await operator.get(again.headers["Location"])).text
    )


async def test_everything_is_paused_and_resumed(
    api: ApiInTest, operator: httpx.AsyncClient
) -> None:
    await submit(operator, (await read(operator)).form("/pause"))
    assert [row.scope for row in await api.service.status.list_pauses()] == ["all"]
    paused = await read(operator)
    assert "Everything is paused" in paused.words

    await submit(operator, paused.form("/resume"))

    assert await api.service.status.list_pauses() == []


async def test_the_audit_trail_names_the_person_who_pressed(
    api: ApiInTest, operator: httpx.AsyncClient
) -> None:
    client_id = await failed(api, "Acme")
    await submit(operator, (await read(operator, f"/clients/{client_id}")).form("/retry"))
    (*_, last) = await api.service.status.list_events(client_id)
    assert last.actor.endswith(" for adminr")


async def test_a_form_without_its_token_changes_nothing(
    api: ApiInTest, operator: httpx.AsyncClient
) -> None:
    client_id = await failed(api, "Acme")
    form = (await read(operator, f"/clients/{client_id}")).form("/retry")
    foreign = {"Origin": "https://evil.example"}
    for sent in ({}, {"csrf_token": "wrong"}):
        answer = await operator.post(form["action"], data=sent, headers={"Origin": ORIGIN})
        assert answer.status_code == 403
    right = {"csrf_token": form["field csrf_token"]}
    assert (await operator.post(form["action"], data=right, headers=foreign)).status_code == 403
    assert await status_of(api, client_id) == JobStatus.FAILED


# -- who may press ----------------------------------------------------------------------------


async def test_a_person_who_may_only_read_sees_no_button(api: ApiInTest) -> None:
    client_id = await failed(api, "Acme")
    (group,) = await api.service.status.list_failed_groups()
    reader = await signed_in(api, Scope.READ)
    for path in ("", f"/clients/{client_id}", f"/errors/{group.group_id}"):
        page = await read(reader, path)
        posts = [form["action"] for form in page.forms if form.get("method") == "post"]
        assert posts == [f"{CONSOLE}/sign-out"], path
    assert "needs the scope operate" in (await read(reader, f"/clients/{client_id}")).words


async def test_an_operator_retries_and_does_not_pause(api: ApiInTest) -> None:
    client_id = await failed(api, "Acme")
    operator = await signed_in(api, Scope.OPERATE)
    page = await read(operator)
    assert not [form for form in page.forms if form.get("action", "").endswith("/pause")]
    await submit(operator, (await read(operator, f"/clients/{client_id}")).form("/retry"))
    assert await status_of(api, client_id) == JobStatus.QUEUED


# -- what goes wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (f"/clients/{UUID(int=7)}", 404, "There is no client"),
        ("/clients/not-an-id", 422, "client_id"),
        ("/clients?status=strange", 422, "status"),
        ("/errors/0123456789abcdef", 404, "No client is failed with that error any more"),
        ("/errors/0123456789abcdef/retry", 404, "No client is failed with that error any more"),
    ],
)
async def test_an_error_is_a_page_with_a_link_to_the_overview(
    operator: httpx.AsyncClient, path: str, status: int, words: str
) -> None:
    page = await read(operator, path, status=status)
    assert words in page.words
    assert "Go to the overview" in page.words


async def test_a_button_of_an_old_page_says_so(api: ApiInTest, operator: httpx.AsyncClient) -> None:
    client_id = await failed(api, "Acme")
    form = (await read(operator, f"/clients/{client_id}")).form("/retry")
    await submit(operator, form)
    answer = await submit(operator, form)
    assert answer.status_code == 409
    assert "has no failed job" in answer.text
    assert (await operator.get(f"{CONSOLE}/clients/{client_id}/retry")).status_code == 409


# -- lists ------------------------------------------------------------------------------------


async def test_the_list_is_searched_and_filtered(
    api: ApiInTest, operator: httpx.AsyncClient
) -> None:
    await failed(api, "Acme Dental")
    await api.jobs.add("Acme Books")
    await api.jobs.add("Birch Bakery")

    async def names(**query: str) -> list[str]:
        answer = await operator.get(f"{CONSOLE}/clients", params=query)
        return sorted(re.findall(r'<th scope="row"><a [^>]*>([^<]*)<', answer.text))

    assert await names(q="acme") == ["Acme Books", "Acme Dental"]
    assert await names(q="acme", status="failed") == ["Acme Dental"]
    assert await names(phase="schema_sync") == ["Acme Dental"]
    assert await names(kind="permanent") == ["Acme Dental"]
    assert await names(status="queued", q="", kind="", phase="") == ["Acme Books", "Birch Bakery"]
    assert await names(q="no such client") == []


async def test_the_list_goes_on_page_after_page(
    api: ApiInTest, operator: httpx.AsyncClient
) -> None:
    await api.jobs.add_many(120)
    seen: list[str] = []
    path: str | None = f"{CONSOLE}/clients?q=client"
    while path is not None:
        text = (await operator.get(path)).text
        seen += re.findall(r'<th scope="row"><a [^>]*>([^<]*)<', text)
        following = re.search(r'href="([^"]*)" rel="next"', text)
        path = following and following[1].replace("&amp;", "&")
    assert len(seen) == len(set(seen)) == 120


# -- files ------------------------------------------------------------------------------------


async def test_files_are_served_for_good_under_an_address_of_their_content(
    api: ApiInTest, operator: httpx.AsyncClient
) -> None:
    stranger = await api.client(None)
    page = await read(operator)
    files = [each for each in page.addresses if "/static/" in each]
    assert {each.partition(".")[2].partition("?")[0][-3:] for each in files} >= {
        "css",
        ".js",
        "svg",
    }
    for each in files:
        answer = await stranger.get(each)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert "?v=" in each


@pytest.mark.parametrize("name", ["../rendering.py", "..%2frendering.py", "/etc/passwd", "none.js"])
async def test_no_other_file_is_served(api: ApiInTest, name: str) -> None:
    stranger = await api.client(None)
    assert (await stranger.get(f"{CONSOLE}/static/{name}")).status_code == 404


def test_vendored_files_come_with_their_licences() -> None:
    vendored = {name for name in ASSETS if name.startswith("vendor/")}
    works = {re.sub(r"-\d[\d.]*(\.min)?\.(js|woff2)$", "", name) for name in vendored}
    licences = {name.removesuffix(".LICENSE.txt") for name in vendored if "LICENSE" in name}
    assert {work for work in works if "LICENSE" not in work} == licences


async def status_of(api: ApiInTest, client_id: UUID) -> JobStatus:
    (row,) = await api.service.status.list_jobs(client_id=client_id)
    return JobStatus(row.status)


ORIGIN = "http://pgworker.test"
