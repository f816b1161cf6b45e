"""A thin typed client of Supabase's Management API (v1).

One method for each operation that pgworker uses. No request is ever repeated here: the caller
decides about that, by the kind of the error.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from pgworker.errors import LeaseLost, Permanent, Transient
from pgworker.providers.rate_limits import LocalLimiter
from pgworker.providers.supabase import endpoints
from pgworker.providers.supabase.errors import (
    ApiAnswer,
    ApiCall,
    classify,
    lost,
    read_rate_limit,
    unreadable,
)
from pgworker.providers.supabase.models import (
    REF_PATTERN,
    ApiKey,
    LegacyKeys,
    ListedProject,
    Organization,
    PoolerConfig,
    Project,
    ProjectPage,
    ServiceHealth,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from pgworker.providers.rate_limits import Limiter
    from pgworker.providers.supabase.endpoints import Endpoint
    from pgworker.tenants.connection import StatementError

T = TypeVar("T")

# Well below the time that servers keep idle connections (often 5 s): a request that meets the close
# of its connection is lost, and the outcome of a create would be unknown.
LIMITS: Final = httpx.Limits(
    max_connections=100, max_keepalive_connections=20, keepalive_expiry=2.0
)
# The longest page of the API.
PAGE_SIZE: Final = 100
USER_AGENT: Final = f"pgworker/{version('pgworker')}"

_ORGANIZATION = TypeAdapter(Organization)
_PROJECT = TypeAdapter(Project)
_PROJECT_PAGE = TypeAdapter(ProjectPage)
_HEALTH = TypeAdapter(list[ServiceHealth])
_API_KEY = TypeAdapter(ApiKey)
_API_KEYS = TypeAdapter(list[ApiKey])
_LEGACY_KEYS = TypeAdapter(LegacyKeys)
_POOLERS = TypeAdapter(list[PoolerConfig])
_ROWS = TypeAdapter(list[dict[str, Any]])


class ManagementApi:
    """Calls the Management API with one access token.

    Each request needs a reservation of the limiter: when its bucket is empty, the caller gets
    `Throttled` and nothing is sent.

    Every method raises `JobError` of any kind, and the errors of the limiter; messages contain no
    secret.
    """

    def __init__(
        self,
        base_url: str,
        access_token: str,
        *,
        limiter: Limiter | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Open no connection yet; without a limiter, other processes aren't considered."""
        fingerprint = hashlib.sha256(access_token.encode()).hexdigest()[:8]
        self.credential = f"supabase:{fingerprint}"
        self._token = access_token
        self._limiter = limiter or LocalLimiter()
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers={
                "Authorization": f"Bearer {access_token}",
                "Accept": "application/json",
                "User-Agent": USER_AGENT,
            },
            limits=LIMITS,
            transport=transport,
            follow_redirects=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def get_organization(self, slug: str) -> Organization:
        """Return the organisation: the cheapest way to check token and slug."""
        return await self._read(endpoints.GET_ORGANIZATION, slug, _ORGANIZATION)

    async def list_projects(
        self, slug: str, *, offset: int, search: str | None = None
    ) -> ProjectPage:
        """Return one page of the organisation's projects, or of those whose names match `search`.

        Never filtered by status: that filter hides projects that are coming up.
        """
        params = {"limit": str(PAGE_SIZE), "offset": str(offset)}
        if search is not None:
            params["search"] = search
        return await self._read(endpoints.LIST_PROJECTS, slug, _PROJECT_PAGE, params=params)

    async def list_all_projects(
        self, slug: str, *, search: str | None = None
    ) -> list[ListedProject]:
        """Return all pages of `list_projects`.

        Raises:
            Transient: the number of projects changed meanwhile. Concurrent creates and deletes
                shift the offsets, so that a project may be missing.
        """
        by_ref: dict[str, ListedProject] = {}
        offset, count = 0, None
        while count is None or offset < count:
            page = await self.list_projects(slug, search=search, offset=offset)
            if count is not None and page.pagination.count != count:
                what = "it was read" if search is None else f"{search!r} was looked up"
                raise Transient(f"the list of projects changed while {what}")
            count = page.pagination.count
            if not page.projects:
                break
            offset += len(page.projects)
            by_ref |= {item.ref: item for item in page.projects}
        return list(by_ref.values())

    async def create_project(
        self, body: dict[str, Any], *, must_leave_before: float = math.inf
    ) -> Project:
        """Create a project. Not idempotent.

        Args:
            body: `V1CreateProjectBody`, with `organization_slug` and `db_pass`.
            must_leave_before: on `time.monotonic`.

        Raises:
            LeaseLost: it is too late; nothing was sent.
            NameTaken: a project of that name exists: look it up.
            OutcomeUnknown: it may have been created.
        """
        return await self._read(
            endpoints.CREATE_PROJECT,
            body["organization_slug"],
            _PROJECT,
            json=body,
            secrets=(body["db_pass"],),
            must_leave_before=must_leave_before,
        )

    async def get_project(self, ref: str) -> Project:
        """Return the project; raises `NotFound` when there is none."""
        return await self._read(endpoints.GET_PROJECT, checked_ref(ref), _PROJECT)

    async def get_health(self, ref: str, services: Sequence[str]) -> list[ServiceHealth]:
        """Return the state of these services."""
        # The parameter is repeated; a comma list would be one invalid value.
        params = [("services", service) for service in services]
        return await self._read(endpoints.GET_HEALTH, checked_ref(ref), _HEALTH, params=params)

    async def list_api_keys(self, ref: str) -> list[ApiKey]:
        """Return the project's keys, revealed if the token has that permission."""
        params = {"reveal": "true"}
        return await self._read(endpoints.LIST_API_KEYS, checked_ref(ref), _API_KEYS, params=params)

    async def create_api_key(
        self, ref: str, body: dict[str, Any], *, must_leave_before: float = math.inf
    ) -> ApiKey:
        """Create a key (`CreateApiKeyBody`). Look by name first: it isn't idempotent.

        Raises:
            LeaseLost: it is later than `must_leave_before`, on `time.monotonic`: nothing was sent.
        """
        return await self._read(
            endpoints.CREATE_API_KEY,
            checked_ref(ref),
            _API_KEY,
            params={"reveal": "true"},
            json=body,
            must_leave_before=must_leave_before,
        )

    async def are_legacy_keys_enabled(self, ref: str) -> bool:
        """Return whether the keys `anon` and `service_role` can be used.

        403 and 404 mean no: the endpoint disappears together with these keys.
        """
        try:
            answer = await self._read(endpoints.GET_LEGACY_KEYS, checked_ref(ref), _LEGACY_KEYS)
        except Permanent:
            return False
        return answer.enabled

    async def list_poolers(self, ref: str) -> list[PoolerConfig]:
        """Return the pooler's entries, one for each database of the project."""
        return await self._read(endpoints.GET_POOLER, checked_ref(ref), _POOLERS)

    async def run_query(
        self,
        ref: str,
        sql: str,
        *,
        read_refusal: Callable[[ApiAnswer], StatementError | None],
    ) -> list[dict[str, Any]]:
        """Run SQL as `postgres`; return the rows of the one set that the API gives back.

        Args:
            ref: the project.
            sql: one statement or a script.
            read_refusal: finds the server's error in an answer, before `classify` sees it.

        Raises:
            OutcomeUnknown: it may have run, be running still, and commit later.
        """
        return await self._read(
            endpoints.RUN_QUERY,
            checked_ref(ref),
            _ROWS,
            json={"query": sql},
            secrets=_echoes(sql),
            read_refusal=read_refusal,
        )

    async def set_password(self, ref: str, password: str) -> None:
        """Set the password of `postgres`. Repeating it with the same value is safe."""
        json = {"password": password}
        await self._send(endpoints.SET_PASSWORD, checked_ref(ref), json=json, secrets=(password,))

    async def delete_project(self, ref: str) -> None:
        """Delete the project; raises `NotFound` when there is none. Safe to repeat."""
        await self._send(endpoints.DELETE_PROJECT, checked_ref(ref))

    async def _read(
        self, endpoint: Endpoint, scope: str, shape: TypeAdapter[T], **request: Any
    ) -> T:
        call, response = await self._send(endpoint, scope, **request)
        try:
            return shape.validate_json(response.content)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "body"
            what = f"{field}: {first['type']}"
        # Outside of the handler: the validation error has the input, which may contain keys.
        raise unreadable(call, response.status_code, what)

    async def _send(
        self,
        endpoint: Endpoint,
        scope: str,
        *,
        secrets: tuple[str, ...] = (),
        read_refusal: Callable[[ApiAnswer], StatementError | None] | None = None,
        **request: Any,
    ) -> tuple[ApiCall, httpx.Response]:
        """Send one request, once; return the 2xx answer."""
        call = ApiCall(endpoint, scope, self.credential, (self._token, *secrets))
        reservation = await self._limiter.reserve(call.bucket)
        response = await self._request(call, **request)
        answer = ApiAnswer(response.status_code, response.headers, response.content)
        await self._limiter.report(reservation, read_rate_limit(answer))
        if response.is_success:
            return call, response
        refusal = read_refusal(answer) if read_refusal else None
        if refusal is not None:
            raise refusal
        raise classify(call, answer)

    async def _request(
        self,
        call: ApiCall,
        *,
        params: Any = None,
        json: Any = None,
        must_leave_before: float = math.inf,
    ) -> httpx.Response:
        endpoint = call.endpoint
        try:
            # The client's own time-outs are for each read: an answer that trickles in would
            # outlast any lease.
            async with asyncio.timeout(endpoint.time_limit.total_seconds()):
                return await self._client.request(
                    endpoint.method,
                    endpoint.path.format(scope=call.scope),
                    params=params,
                    json=json,
                    timeout=httpx.Timeout(
                        endpoint.answer_timeout.total_seconds(),
                        connect=endpoints.CONNECT_TIMEOUT.total_seconds(),
                    ),
                    extensions={"trace": partial(_refuse_late_send, must_leave_before)},
                )
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise Permanent(f"SUPABASE_API_URL can't be used: {error}") from error
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            # No connection, no byte: the only failure of a create that is known to be harmless.
            raise lost(call, _reason(error), sent=False) from error
        except httpx.RequestError as error:
            raise lost(call, _reason(error), sent=True) from error
        except TimeoutError as error:
            seconds = endpoint.time_limit.total_seconds()
            raise lost(call, f"not complete after {seconds:.0f} s", sent=True) from error


async def _refuse_late_send(deadline: float, event: str, _: dict[str, Any]) -> None:
    """Stop a request that would leave after its deadline: the process may have been frozen.

    httpcore reports the headers as the last event before the first byte is sent.
    """
    if event.endswith("send_request_headers.started") and time.monotonic() > deadline:
        raise LeaseLost("this process stood still for too long to send the request safely")


def checked_ref(ref: str) -> str:
    """Return the ref if it may be part of a URL and of a host name.

    Raises:
        Permanent: it isn't 20 lower-case letters.
    """
    if REF_PATTERN.fullmatch(ref) is None:
        raise Permanent(f"{ref[:40]!r} is not a project ref (20 lower-case letters)")
    return ref


def _reason(error: httpx.RequestError) -> str:
    # Time-outs have no text of their own.
    return f"{type(error).__name__} {error}".strip()


def _echoes(sql: str) -> tuple[str, ...]:
    """Return the parts of a statement that an error message may echo: all of it, or a line.

    A line without a blank may be a name that belongs in the message, and isn't hidden.
    """
    lines = (line.strip() for line in sql.splitlines())
    return (sql.strip(), *(line for line in lines if len(line) >= 12 and " " in line))
