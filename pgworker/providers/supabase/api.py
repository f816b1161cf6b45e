"""A thin typed client of Supabase's Management API (v1).

One method for each operation that pgworker uses. No request is ever repeated here: whether it may
be is for the caller to decide, by the kind of the error.
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

from pgworker.errors import LeaseLost, Permanent
from pgworker.providers.rate_limits import OwnLimits
from pgworker.providers.supabase import endpoints
from pgworker.providers.supabase.errors import (
    Answer,
    Call,
    classify,
    lost,
    read_rate_limit,
    unreadable,
)
from pgworker.providers.supabase.models import (
    REF_PATTERN,
    ApiKey,
    LegacyKeys,
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

# Well below what servers keep idle connections for (often 5 s): a request that meets the close of
# its connection is lost, and of a create nobody could tell whether it was.
LIMITS: Final = httpx.Limits(
    max_connections=100, max_keepalive_connections=20, keepalive_expiry=2.0
)
# Longest page that the API grants.
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

    Each request asks the limiter first: when its bucket is empty, the caller gets `Throttled` and
    nothing is sent.

    Every method raises `JobError` of any kind, and what the limiter raises; messages hold no
    secret.
    """

    def __init__(
        self,
        base_url: str,
        access_token: str,
        *,
        limits: Limiter | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Open no connection yet; without `limits`, no other process is reckoned with."""
        fingerprint = hashlib.sha256(access_token.encode()).hexdigest()[:8]
        self.credential = f"supabase:{fingerprint}"
        self._token = access_token
        self._limits = limits or OwnLimits()
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
        """Return the organisation; the cheapest proof that token and slug are good."""
        return await self._read(endpoints.GET_ORGANIZATION, slug, _ORGANIZATION)

    async def list_projects(
        self, slug: str, *, offset: int, search: str | None = None
    ) -> ProjectPage:
        """Return one page of the organisation's projects, or of those whose names match `search`.

        Never filtered by status: that filter hides what is coming up.
        """
        params = {"limit": str(PAGE_SIZE), "offset": str(offset)}
        if search is not None:
            params["search"] = search
        return await self._read(endpoints.LIST_PROJECTS, slug, _PROJECT_PAGE, params=params)

    async def create_project(
        self, body: dict[str, Any], *, must_leave_before: float = math.inf
    ) -> Project:
        """Create a project. Not idempotent.

        Args:
            body: `V1CreateProjectBody`, with `organization_slug` and `db_pass`.
            must_leave_before: on `time.monotonic`.

        Raises:
            LeaseLost: it is too late: nothing was sent.
            NameTaken: there is one of that name: look it up.
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
        """Return how these services are."""
        # The parameter is repeated; a comma list would be one invalid value.
        params = [("services", service) for service in services]
        return await self._read(endpoints.GET_HEALTH, checked_ref(ref), _HEALTH, params=params)

    async def list_api_keys(self, ref: str) -> list[ApiKey]:
        """Return the project's keys, revealed where the token may."""
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
        """Tell whether `anon` and `service_role` are worth anything.

        403 and 404 mean no: the endpoint goes away together with these keys.
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
        read_refusal: Callable[[Answer], StatementError | None],
    ) -> list[dict[str, Any]]:
        """Run SQL as `postgres`; return the rows of the one set that the API gives back.

        Args:
            ref: the project.
            sql: one statement or a script.
            read_refusal: finds the server's error in an answer, before any other reading of it.

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
            place = ".".join(str(part) for part in first["loc"]) or "body"
            what = f"{place}: {first['type']}"
        # Outside of the handler: the validation error carries the input, which may hold keys.
        raise unreadable(call, response.status_code, what)

    async def _send(
        self,
        endpoint: Endpoint,
        scope: str,
        *,
        params: Any = None,
        json: Any = None,
        secrets: tuple[str, ...] = (),
        read_refusal: Callable[[Answer], StatementError | None] | None = None,
        must_leave_before: float = math.inf,
    ) -> tuple[Call, httpx.Response]:
        """Send one request, once; return the 2xx answer."""
        call = Call(endpoint, scope, self.credential, (self._token, *secrets))
        ticket = await self._limits.take(call.bucket)
        try:
            # The client's own time-outs are for each read: an answer that trickles in would
            # outlast any lease.
            async with asyncio.timeout(endpoint.time_limit.total_seconds()):
                response = await self._client.request(
                    endpoint.method,
                    endpoint.path.format(scope=scope),
                    params=params,
                    json=json,
                    timeout=httpx.Timeout(
                        endpoint.answer_timeout.total_seconds(),
                        connect=endpoints.CONNECT_TIMEOUT.total_seconds(),
                    ),
                    extensions={"trace": partial(_hold_back_after, must_leave_before)},
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

        answer = Answer(response.status_code, response.headers, response.content)
        await self._limits.learn(ticket, read_rate_limit(answer))
        if response.is_success:
            return call, response
        refusal = read_refusal(answer) if read_refusal else None
        if refusal is not None:
            raise refusal
        raise classify(call, answer)


async def _hold_back_after(deadline: float, event: str, _: dict[str, Any]) -> None:
    """Stop a request that would leave too late: its process may have been frozen for long.

    The last moment before its first byte is sent is httpcore's event for the headers.
    """
    if event.endswith("send_request_headers.started") and time.monotonic() > deadline:
        raise LeaseLost("this process stood still for too long to send the request safely")


def checked_ref(ref: str) -> str:
    """Return the ref, once it is sure that it may stand in a URL and in a host name.

    Raises:
        Permanent: it isn't 20 lower-case letters.
    """
    if REF_PATTERN.fullmatch(ref) is None:
        raise Permanent(f"{ref[:40]!r} is not a project ref (20 lower-case letters)")
    return ref


def _reason(error: httpx.RequestError) -> str:
    # Time-outs come without a text of their own.
    return f"{type(error).__name__} {error}".strip()


def _echoes(sql: str) -> tuple[str, ...]:
    """Return the pieces of a statement that an error message may echo: all of it, or a line.

    A line without a blank may be a name that the message rightly tells, and stays.
    """
    lines = (line.strip() for line in sql.splitlines())
    return (sql.strip(), *(line for line in lines if len(line) >= 12 and " " in line))
