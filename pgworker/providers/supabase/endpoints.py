"""The operations of the Management API that pgworker uses, and what their answers mean."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pgworker.errors import OutcomeUnknown, Transient

CONNECT_TIMEOUT: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation of the API, with what its answers mean.

    Attributes:
        path: template, relative to the base URL; its one placeholder takes the scope.
        permission: the OAuth scope that a token needs for it.
        is_basic: every job needs it: a 403 is about the credential, not about the job.
        unclear: the error for a request that may have taken effect. `Transient` where doing it
            twice does no harm.
        not_ready: the 4xx statuses of a project that is starting.
        of_organization: its scope is the organisation, so that many jobs share one rate limit.
        creates_project: a refusal may be about the name, or about money.
        quotes_sql: its messages may quote a statement, whose words mean nothing.
        answer_timeout: for the request and its answer, once we are connected.
    """

    method: str
    path: str
    permission: str
    is_basic: bool = False
    unclear: type[Transient] | type[OutcomeUnknown] = Transient
    not_ready: frozenset[int] = frozenset()
    of_organization: bool = False
    creates_project: bool = False
    quotes_sql: bool = False
    answer_timeout: timedelta = timedelta(seconds=30)

    @property
    def time_limit(self) -> timedelta:
        """How long a call may take, from connecting to the last byte of the answer."""
        return CONNECT_TIMEOUT + self.answer_timeout

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


# The answers of a project that is starting.
_STARTING = frozenset({400, 404, 409, 422, 423})

GET_ORGANIZATION = Endpoint(
    "GET",
    "/v1/organizations/{scope}",
    "organizations:read",
    is_basic=True,
    of_organization=True,
)
LIST_PROJECTS = Endpoint(
    "GET",
    "/v1/organizations/{scope}/projects",
    "projects:read",
    is_basic=True,
    of_organization=True,
)
CREATE_PROJECT = Endpoint(
    "POST",
    "/v1/projects",
    "projects:write",
    is_basic=True,
    unclear=OutcomeUnknown,
    of_organization=True,
    creates_project=True,
    answer_timeout=timedelta(seconds=60),
)
GET_PROJECT = Endpoint("GET", "/v1/projects/{scope}", "projects:read", is_basic=True)
GET_HEALTH = Endpoint("GET", "/v1/projects/{scope}/health", "projects:read", is_basic=True)
LIST_API_KEYS = Endpoint(
    "GET", "/v1/projects/{scope}/api-keys", "secrets:read (with reveal)", not_ready=_STARTING
)
# Not idempotent, but looked up by name before each attempt: a repeated step does no harm.
CREATE_API_KEY = Endpoint(
    "POST", "/v1/projects/{scope}/api-keys", "secrets:write", not_ready=_STARTING
)
GET_LEGACY_KEYS = Endpoint("GET", "/v1/projects/{scope}/api-keys/legacy", "secrets:read")
GET_POOLER = Endpoint(
    "GET", "/v1/projects/{scope}/config/database/pooler", "database:read", not_ready=_STARTING
)
# Above the API's own limit of about 50 seconds: its answer says more than our time-out.
RUN_QUERY = Endpoint(
    "POST",
    "/v1/projects/{scope}/database/query",
    "database:write",
    unclear=OutcomeUnknown,
    not_ready=_STARTING,
    quotes_sql=True,
    answer_timeout=timedelta(seconds=65),
)
SET_PASSWORD = Endpoint("PATCH", "/v1/projects/{scope}/database/password", "database:write")
DELETE_PROJECT = Endpoint(
    "DELETE", "/v1/projects/{scope}", "projects:write", not_ready=frozenset({400, 409})
)
