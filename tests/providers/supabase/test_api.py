"""How the client reads each answer, without a network."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from pgworker.errors import (
    CredentialRefused,
    JobError,
    OutcomeUnknown,
    Permanent,
    QuotaExceeded,
    Throttled,
    Transient,
)
from pgworker.providers.rate_limits import Bucket, LocalLimiter, RateLimit, Reservation
from pgworker.providers.supabase import endpoints
from pgworker.providers.supabase.api import ManagementApi
from pgworker.providers.supabase.connection import ManagementConnection
from pgworker.providers.supabase.endpoints import (
    CREATE_API_KEY,
    CREATE_PROJECT,
    DELETE_PROJECT,
    GET_ORGANIZATION,
    GET_POOLER,
    GET_PROJECT,
    LIST_API_KEYS,
    LIST_PROJECTS,
    RUN_QUERY,
    SET_PASSWORD,
    Endpoint,
)
from pgworker.providers.supabase.errors import (
    MESSAGE_LIMIT,
    ApiAnswer,
    ApiCall,
    NameTaken,
    NotFound,
    classify,
    read_message,
    read_rate_limit,
    retry_after,
)
from pgworker.tenants.connection import StatementError

TOKEN = "sbp_0123456789abcdef0123456789abcdef01234567"
PASSWORD = "Kq7Zp2Wm9Xr4Tb6Vn8Lc3Hd5Jf1Gs0Ay"
REF = "abcdefghijklmnopqrst"
SLUG = "acme-org"
PROJECT = {
    "id": REF,
    "ref": REF,
    "organization_id": SLUG,
    "organization_slug": SLUG,
    "name": "pgworker-x",
    "region": "eu-central-1",
    "created_at": "2026-01-02T03:04:05.678Z",
    "status": "UNKNOWN",
}
BODY = {"name": "pgworker-x", "organization_slug": SLUG, "db_pass": PASSWORD}

Reply = Callable[[httpx.Request], httpx.Response]


def api_answering(reply: Reply, **options: Any) -> ManagementApi:
    return ManagementApi("https://api.test", TOKEN, transport=httpx.MockTransport(reply), **options)


def always(status: int, body: Any = None, **headers: str) -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda request: httpx.Response(status, content=content, headers=headers)


def failing(error: type[httpx.RequestError]) -> Reply:
    def reply(request: httpx.Request) -> httpx.Response:
        raise error("boom", request=request)

    return reply


def format_all(error: BaseException) -> str:
    """Everything of an error that may reach a log, its causes included."""
    return "".join(traceback.format_exception(error)) + repr(error)


def judge(endpoint: Endpoint, status: int, body: Any = None, **headers: str) -> JobError:
    call = ApiCall(endpoint, SLUG, "supabase:12345678", (TOKEN, PASSWORD))
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(call, ApiAnswer(status, headers, content))


MESSAGE = {"message": "something is wrong"}
EXISTS = {"message": "Project with name x already exists in your organization"}
FREE_LIMIT = {"message": "The following members have reached the limit of active free projects"}
OVERDUE = {"message": "Your organization has overdue invoices"}


@pytest.mark.parametrize(
    ("endpoint", "status", "body", "kind"),
    [
        # The credential.
        (GET_ORGANIZATION, 401, MESSAGE, CredentialRefused),
        (CREATE_PROJECT, 401, b"", CredentialRefused),
        (RUN_QUERY, 401, MESSAGE, CredentialRefused),
        (LIST_PROJECTS, 403, MESSAGE, CredentialRefused),
        (GET_PROJECT, 403, b"", CredentialRefused),
        (LIST_API_KEYS, 403, MESSAGE, Permanent),
        (RUN_QUERY, 403, MESSAGE, Permanent),
        (GET_POOLER, 403, MESSAGE, Permanent),
        # Money.
        (CREATE_PROJECT, 402, MESSAGE, QuotaExceeded),
        (CREATE_PROJECT, 400, FREE_LIMIT, QuotaExceeded),
        (CREATE_PROJECT, 403, FREE_LIMIT, QuotaExceeded),
        (CREATE_PROJECT, 422, OVERDUE, QuotaExceeded),
        # The name.
        (CREATE_PROJECT, 400, EXISTS, NameTaken),
        (CREATE_PROJECT, 409, MESSAGE, NameTaken),
        (CREATE_PROJECT, 422, EXISTS, NameTaken),
        (LIST_PROJECTS, 400, EXISTS, Permanent),
        # Our request.
        (CREATE_PROJECT, 400, MESSAGE, Permanent),
        (CREATE_PROJECT, 422, {"message": ["a", "b"]}, Permanent),
        (CREATE_PROJECT, 404, MESSAGE, NotFound),
        (GET_ORGANIZATION, 404, MESSAGE, NotFound),
        (GET_PROJECT, 404, b"", NotFound),
        (LIST_PROJECTS, 405, MESSAGE, Permanent),
        (LIST_PROJECTS, 415, MESSAGE, Permanent),
        # A gateway's page isn't the API's refusal.
        (CREATE_PROJECT, 400, b"<html><body>Bad Request</body></html>", OutcomeUnknown),
        # A project that isn't ready.
        (LIST_API_KEYS, 400, MESSAGE, Transient),
        (LIST_API_KEYS, 404, MESSAGE, Transient),
        (GET_POOLER, 404, MESSAGE, Transient),
        (RUN_QUERY, 400, MESSAGE, Transient),
        (RUN_QUERY, 404, MESSAGE, Transient),
        (DELETE_PROJECT, 400, {"message": "Project not ready for deletion."}, Transient),
        (DELETE_PROJECT, 404, MESSAGE, NotFound),
        # Passing trouble; unclear where it may have happened.
        *((GET_PROJECT, status, b"error", Transient) for status in (408, 425, 500, 502, 522, 544)),
        *((CREATE_PROJECT, s, b"error", OutcomeUnknown) for s in (303, 408, 425, 500, 504, 524)),
        *((RUN_QUERY, status, MESSAGE, OutcomeUnknown) for status in (408, 500, 502, 544)),
        (CREATE_API_KEY, 500, MESSAGE, Transient),
        (SET_PASSWORD, 502, MESSAGE, Transient),
        (CREATE_PROJECT, 429, MESSAGE, Throttled),
        (RUN_QUERY, 429, b"", Throttled),
    ],
)
def test_a_refusal_is_classified_as_the_contract_says(
    endpoint: Endpoint, status: int, body: Any, kind: type[JobError]
) -> None:
    assert type(judge(endpoint, status, body)) is kind


def test_a_refused_credential_is_named_by_a_fingerprint_and_not_by_itself() -> None:
    error = judge(GET_ORGANIZATION, 401, {"message": f"bad token {TOKEN}"})

    assert isinstance(error, CredentialRefused)
    assert error.credential == "supabase:12345678"
    assert TOKEN not in str(error)


def test_a_403_on_one_endpoint_says_which_permission_is_missing() -> None:
    assert "secrets:read" in str(judge(LIST_API_KEYS, 403, MESSAGE))


def test_the_words_of_an_sql_error_are_not_a_quota_error() -> None:
    body = {"message": 'Failed to run sql query: no relation "overdue_invoices"'}

    assert type(judge(RUN_QUERY, 400, body)) is Transient


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset": "17", "retry-after": "99"}, 17),
        ({"x-ratelimit-reset": "2.5"}, 2.5),
        ({"retry-after": "9"}, 9),
        ({"x-ratelimit-reset": "soon", "retry-after": "9"}, 9),
        ({"x-ratelimit-reset": "0"}, 1),
        ({"x-ratelimit-reset": "1790000000"}, 300),
        ({"x-ratelimit-reset": "nan"}, 30),
        ({"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}, 300),
        ({"x-ratelimit-reset": "-4"}, 30),
        ({}, 30),
    ],
)
def test_a_429_waits_as_long_as_the_server_says_within_bounds(
    headers: dict[str, str], seconds: float
) -> None:
    assert retry_after(headers) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"message": "plain"}', "plain"),
        (b'{"message": ["one", "two"], "extra": 1}', "one; two"),
        (b'{"message": "two\\n lines"}', "two lines"),
        (b'{"error": {"message": "nested"}}', "nested"),
        (b"error code: 502", "error code: 502"),
        (b"<html><style>x{}</style><h1>502 Bad&nbsp;Gateway</h1></html>", "502 Bad Gateway"),
        (b"", "no message"),
        (b"{}", "no message"),
        (b"null", "no message"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_any_error_body_becomes_one_readable_line(body: bytes, message: str) -> None:
    assert read_message(body) == message


@pytest.mark.parametrize(
    "secret",
    [
        TOKEN,
        "sb_secret_abcDEF123_x-y",
        "sb_publishable_abcDEF123",
        "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9.c2lnbmF0dXJl",
    ],
)
def test_a_text_like_a_credential_never_gets_into_a_message(secret: str) -> None:
    assert secret not in read_message(json.dumps({"message": f"got {secret}!"}).encode())


def test_a_password_in_a_url_is_hidden_and_a_long_message_is_cut_after_scrubbing() -> None:
    text = "x" * (MESSAGE_LIMIT - 10) + f" {PASSWORD} postgresql://postgres:{PASSWORD}@host/db"
    message = read_message(json.dumps({"message": text}).encode(), secrets=[PASSWORD])

    assert len(message) == MESSAGE_LIMIT
    assert PASSWORD[:6] not in message
    assert ":hunter2@" not in read_message(b'{"message": "postgresql://postgres:hunter2@host/db"}')


# -- transport --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "of_a_read", "of_a_create"),
    [
        (httpx.ConnectError, Transient, Transient),
        (httpx.ConnectTimeout, Transient, Transient),
        (httpx.ReadTimeout, Transient, OutcomeUnknown),
        (httpx.ReadError, Transient, OutcomeUnknown),
        (httpx.WriteError, Transient, OutcomeUnknown),
        (httpx.RemoteProtocolError, Transient, OutcomeUnknown),
    ],
)
async def test_only_a_create_that_may_have_been_sent_is_unclear(
    error: type[httpx.RequestError], of_a_read: type[JobError], of_a_create: type[JobError]
) -> None:
    async with api_answering(failing(error)) as api:
        with pytest.raises(JobError) as read:
            await api.get_project(REF)
        with pytest.raises(JobError) as create:
            await api.create_project(BODY)

    assert type(read.value) is of_a_read
    assert type(create.value) is of_a_create


async def test_an_answer_that_trickles_in_ends_at_the_time_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Trickle(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

    limit = timedelta(milliseconds=50)
    monkeypatch.setattr(endpoints, "CONNECT_TIMEOUT", timedelta(0))
    monkeypatch.setattr(endpoints, "CREATE_PROJECT", replace(CREATE_PROJECT, answer_timeout=limit))
    async with api_answering(lambda _: httpx.Response(201, stream=Trickle())) as api:
        with pytest.raises(OutcomeUnknown, match="not complete after"):
            await asyncio.wait_for(api.create_project(BODY), timeout=30)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>ok</html>", b'{"ref": "abc', b"[]", b"{}"]
    + [json.dumps({k: v for k, v in PROJECT.items() if k != gone}).encode() for gone in ("ref",)]
    + [json.dumps(PROJECT | {"ref": "../../evil"}).encode()],
)
async def test_a_success_without_the_documented_body_is_unclear_after_a_create(
    body: bytes,
) -> None:
    async with api_answering(always(201, body)) as api:
        with pytest.raises(OutcomeUnknown):
            await api.create_project(BODY)
    async with api_answering(always(200, body)) as api:
        with pytest.raises(Transient):
            await api.get_project(REF)


async def test_unknown_fields_and_unknown_statuses_are_tolerated() -> None:
    answer = PROJECT | {"status": "TELEPORTING", "slug": "x", "nested": {"a": [1]}}
    async with api_answering(always(200, answer)) as api:
        assert (await api.get_project(REF)).status == "TELEPORTING"


async def test_a_create_is_sent_once_whatever_comes_back() -> None:
    requests: list[httpx.Request] = []

    def reply(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(502, text="error code: 502")

    async with api_answering(reply) as api:
        with pytest.raises(OutcomeUnknown):
            await api.create_project(BODY)

    (request,) = requests
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["user-agent"].startswith("pgworker/")
    assert request.extensions["timeout"]["connect"] == 5.0
    assert request.extensions["timeout"]["read"] == 60.0


async def test_a_bucket_that_answered_429_stays_closed_for_as_long_as_it_said() -> None:
    now = 1000.0
    statuses: list[int] = [429, 200, 200]
    paths: list[str] = []

    def reply(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(statuses.pop(0), json=PROJECT, headers={"X-RateLimit-Reset": "20"})

    async with api_answering(reply, limiter=LocalLimiter(lambda: now)) as api:
        with pytest.raises(Throttled):
            await api.get_project(REF)
        now += 5.0
        with pytest.raises(Throttled) as shut:
            await api.get_project(REF)
        await api.get_project(REF[::-1])
        now += 15.0
        await api.get_project(REF)

    assert shut.value.retry_after == timedelta(seconds=15)
    assert paths == [f"/v1/projects/{ref}" for ref in (REF, REF[::-1], REF)]


@pytest.mark.parametrize(
    ("status", "headers", "limit"),
    [
        (200, {"limit": "120", "remaining": "7", "reset": "9"}, (120, 7, 9, False)),
        (500, {"limit": "120", "remaining": "0", "reset": "60"}, (120, 0, 60, False)),
        (200, {}, (None, None, None, False)),
        (200, {"limit": "0", "remaining": "-1", "reset": "soon"}, (None, None, None, False)),
        (200, {"limit": "9" * 30, "remaining": "١", "reset": "nan"}, (None, None, None, False)),
        (429, {"limit": "120", "remaining": "0", "reset": "9"}, (120, 0, 9, True)),
        (429, {}, (None, None, 30, True)),
        (429, {"reset": "86400"}, (None, None, 300, True)),
    ],
)
def test_the_headers_of_an_answer_report_its_rate_limit(
    status: int, headers: dict[str, str], limit: tuple[Any, ...]
) -> None:
    named = {f"x-ratelimit-{name}": text for name, text in headers.items()}

    reported = read_rate_limit(ApiAnswer(status, named, b""))

    seconds = None if reported.reset is None else reported.reset.total_seconds()
    assert (reported.limit, reported.remaining, seconds, reported.is_refusal) == limit


async def test_each_request_needs_a_reservation_and_each_answer_is_reported() -> None:
    class RecordingLimiter:
        def __init__(self) -> None:
            self.buckets: list[Bucket] = []
            self.answers: list[tuple[Reservation, RateLimit]] = []

        async def reserve(self, bucket: Bucket) -> Reservation:
            self.buckets.append(bucket)
            if len(self.buckets) == 3:
                raise Throttled("used up", timedelta(seconds=8))
            return Reservation(bucket, 1.0)

        async def report(self, reservation: Reservation, reported: RateLimit) -> None:
            self.answers.append((reservation, reported))

    limiter = RecordingLimiter()
    headers = {"X-RateLimit-Limit": "120", "X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "9"}
    sent: list[str] = []

    def reply(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.path)
        return httpx.Response(404, json=MESSAGE, headers=headers)

    async with api_answering(reply, limiter=limiter) as api:
        for ask in (api.get_project(REF), api.create_project(BODY)):
            with pytest.raises(NotFound):
                await ask
        with pytest.raises(Throttled):
            await api.get_project(REF)

    assert sent == [f"/v1/projects/{REF}", "/v1/projects"]
    assert limiter.buckets[:2] == [
        Bucket(api.credential, REF, "GET /v1/projects/{scope}", is_contended=False),
        Bucket(api.credential, SLUG, "POST /v1/projects", is_contended=True),
    ]
    reported = RateLimit(120, 7, timedelta(seconds=9))
    assert limiter.answers == [
        (Reservation(bucket, 1.0), reported) for bucket in limiter.buckets[:2]
    ]


@pytest.mark.parametrize("ref", ["", "short", REF.upper(), "../v1/organizations/", REF + "a"])
async def test_a_malformed_ref_never_gets_into_a_url(ref: str) -> None:
    def reply(request: httpx.Request) -> httpx.Response:
        pytest.fail(f"sent {request.url}")

    async with api_answering(reply) as api:
        with pytest.raises(Permanent):
            await api.get_project(ref)


async def test_each_service_is_a_parameter_of_its_own_and_keys_are_revealed() -> None:
    urls: list[str] = []

    def reply(request: httpx.Request) -> httpx.Response:
        urls.append(request.url.query.decode())
        return httpx.Response(200, json=[])

    async with api_answering(reply) as api:
        await api.get_health(REF, ("db", "rest"))
        await api.list_api_keys(REF)

    assert urls == ["services=db&services=rest", "reveal=true"]


@pytest.mark.parametrize(
    "reply",
    [
        always(400, {"message": f"db_pass {PASSWORD} is weak, says {TOKEN}"}),
        always(500, f"echo: {PASSWORD} {TOKEN}".encode()),
        always(201, {"db_pass": PASSWORD, "token": TOKEN}),
        always(201, json.dumps(PROJECT | {"ref": PASSWORD, "name": TOKEN}).encode()[:-2]),
        failing(httpx.ReadTimeout),
    ],
)
async def test_no_secret_gets_into_an_error_or_its_traceback(reply: Reply) -> None:
    async with api_answering(reply) as api:
        with pytest.raises(JobError) as caught:
            await api.create_project(BODY)
        assert TOKEN not in repr(api)

    assert PASSWORD not in format_all(caught.value)
    assert TOKEN not in format_all(caught.value)


# -- database/query ---------------------------------------------------------------------------

SQL = "create table a (id int);\ninsert into b values (1, 'top secret');"


async def test_the_rows_of_a_query_come_from_its_201() -> None:
    async with api_answering(always(201, [{"a": 1}])) as api:
        assert await ManagementConnection(api, REF).fetch("select 1 as a") == [{"a": 1}]


def sql_failed(text: str) -> Reply:
    return always(400, {"message": f"Failed to run sql query: {text}"})


@pytest.mark.parametrize(
    ("tail", "position"),
    [
        ("", None),
        ("\nLINE 2: insert into b values (1, 'top secret');\n                    ^\n", 38),
        ("\nLINE 2: ...sert into b values (1, 'top sec...\n             ^\n", 26),
        ("\nLINE 2: insert into b", 26),
        ("\nLINE 9: insert into b", None),
    ],
)
async def test_an_sql_error_has_sqlstate_and_position_but_no_echo(
    tail: str, position: int | None
) -> None:
    error = f'ERROR:  42P01: relation "b" does not exist{tail}'
    async with api_answering(sql_failed(error)) as api:
        with pytest.raises(StatementError) as caught:
            await ManagementConnection(api, REF).execute(SQL)

    assert caught.value.message == 'relation "b" does not exist'
    assert caught.value.sqlstate == "42P01"
    assert caught.value.position == position
    assert position != 38 or SQL[position - 1 :].startswith("b values")


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("53300", Transient),
        ("57P03", Transient),
        ("28P01", Transient),
        ("57P01", OutcomeUnknown),
        ("08006", OutcomeUnknown),
        ("57014", StatementError),
        ("25001", StatementError),
    ],
)
async def test_a_server_that_ended_the_session_has_not_refused_the_statement(
    sqlstate: str, kind: type[Exception]
) -> None:
    async with api_answering(sql_failed(f"ERROR:  {sqlstate}: x")) as api:
        with pytest.raises(kind):
            await ManagementConnection(api, REF).execute(SQL)


@pytest.mark.parametrize(
    "reply",
    [
        always(544, {"message": f"timed out: {SQL}"}),
        always(502, f"echo {SQL}".encode()),
        always(201, b'[{"a": '),
        always(201, {"rows": []}),
        failing(httpx.ReadTimeout),
        failing(httpx.RemoteProtocolError),
    ],
)
async def test_a_query_without_a_clear_answer_is_unclear_and_its_text_stays_hidden(
    reply: Reply,
) -> None:
    async with api_answering(reply) as api:
        with pytest.raises(OutcomeUnknown) as caught:
            await ManagementConnection(api, REF).execute(SQL)

    assert "top secret" not in format_all(caught.value)
