"""Every error as RFC 9457 `application/problem+json`, with a sentence for the person who reads it.

The routes carry this with them (`ProblemRoute`), because an application that includes them keeps
its own exception handlers.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Match

from pgworker.errors import (
    BadConfiguration,
    BadCursor,
    DatabaseUnreachable,
    IdempotencyConflict,
    NotRetryable,
    PgworkerError,
    SchemaMismatch,
    TooManyStreams,
    UnknownClient,
    UnknownWorkflow,
    UnstorableText,
)
from pgworker.telemetry import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from fastapi import FastAPI
    from starlette.responses import Response
    from starlette.types import Message

PROBLEM_JSON = "application/problem+json"
SIGN_IN_PATH = "/admin/provisioning/sign-in"
# What a platform's trouble means to whoever asks. Everything else that is raised on purpose is 500.
_STATUS_OF: dict[type[PgworkerError], HTTPStatus] = {
    BadCursor: HTTPStatus.UNPROCESSABLE_ENTITY,
    IdempotencyConflict: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotRetryable: HTTPStatus.CONFLICT,
    TooManyStreams: HTTPStatus.SERVICE_UNAVAILABLE,
    UnknownClient: HTTPStatus.NOT_FOUND,
    UnknownWorkflow: HTTPStatus.NOT_FOUND,
    UnstorableText: HTTPStatus.UNPROCESSABLE_ENTITY,
    DatabaseUnreachable: HTTPStatus.SERVICE_UNAVAILABLE,
    SchemaMismatch: HTTPStatus.SERVICE_UNAVAILABLE,
    BadConfiguration: HTTPStatus.SERVICE_UNAVAILABLE,
}
RETRY_AFTER_SECONDS = 5
MAX_BODY_BYTES = 64 * 1024
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# A page of the console sets a policy of its own; nothing else is a page.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

log = get_logger()


class Mistake(BaseModel):
    """One thing that is wrong with a request."""

    where: str = Field(description="the field, such as `body.name` or `query.limit`")
    what: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "detail": "there is no client 6f8f1c1e-0000-4000-8000-000000000000",
            }
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="a sentence for a person")
    errors: list[Mistake] | None = Field(
        None, description="what is wrong with the request, one each"
    )


class Refused(HTTPException):
    """A request that we answer with a problem."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        errors: list[Mistake] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, headers=dict(headers or {}))
        self.errors = errors


class NotSignedIn(Refused):
    """Nobody has said who asks: 401, or the sign-in page for a browser."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": 'Bearer realm="pgworker"'}
        )


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of the problems that a route may answer with."""
    return {
        status: {
            "model": Problem,
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def problem(
    status: int,
    detail: str,
    *,
    errors: list[Mistake] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the answer that tells of an error."""
    body = Problem(
        title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors
    ).model_dump(exclude_none=True)
    return secured(JSONResponse(body, status, headers=headers, media_type=PROBLEM_JSON))


class ProblemRoute(APIRoute):
    """A route that answers every error with a problem, whatever application it is part of."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the route's handler."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return secured(await handle(_limited(request)))
            except (HTTPException, RequestValidationError, PgworkerError) as error:
                return as_response(request, error)

        return answered


def _limited(request: Request) -> Request:
    """Return the request with an end to what its body may be.

    Not by FastAPI's `max_body_size`: its refusal is a text of Starlette's.
    """
    too_large = Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is longer than {MAX_BODY_BYTES} bytes"
    )
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > MAX_BODY_BYTES:
        raise too_large
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise too_large
        return message

    return Request(request.scope, receive)


def secured(response: Response) -> Response:
    """Add what keeps browsers from harm, where the response says nothing of it itself."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def as_response(request: Request, error: Exception) -> Response:
    """Return the problem that an error is."""
    match error:
        case NotSignedIn() if wants_html(request) and request.method == "GET":
            return RedirectResponse(SIGN_IN_PATH, HTTPStatus.SEE_OTHER)
        case Refused():
            return problem(
                error.status_code, error.detail, errors=error.errors, headers=error.headers
            )
        case HTTPException():
            return problem(error.status_code, _sentence(error), headers=error.headers)
        case RequestValidationError():
            mistakes = [
                Mistake(where=".".join(str(part) for part in each["loc"]), what=str(each["msg"]))
                for each in error.errors()
            ]
            detail = "; ".join(f"{each.where}: {each.what}" for each in mistakes)
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=mistakes)
        case PgworkerError():
            status = next(
                (status for kind, status in _STATUS_OF.items() if isinstance(error, kind)),
                HTTPStatus.INTERNAL_SERVER_ERROR,
            )
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                log.warning("request_failed", path=request.url.path, error=str(error))
            headers = (
                {"Retry-After": str(RETRY_AFTER_SECONDS)}
                if status is HTTPStatus.SERVICE_UNAVAILABLE
                else None
            )
            return problem(status, str(error), headers=headers)
        case _:
            # What is wrong is in the log; whoever asked isn't told of our inside.
            return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "something broke; the log tells what")


def _sentence(error: HTTPException) -> str:
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return "there is nothing at this address"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return "this address does not take that method; the header Allow names those it takes"
        case _:
            return error.detail


def wants_html(request: Request) -> bool:
    """Return whether a browser asks for a page; what says nothing gets JSON."""
    return "text/html" in request.headers.get("accept", "")


def handle_errors(app: FastAPI) -> None:
    """Answer with a problem, too, where no route of ours was reached."""
    app.add_exception_handler(HTTPException, _handle)
    app.add_exception_handler(RequestValidationError, _handle)
    app.add_exception_handler(Exception, _handle)


async def _handle(request: Request, error: Exception) -> Response:
    response = as_response(request, error)
    if response.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(_methods_of(request))
    return response


def _methods_of(request: Request) -> list[str]:
    """Return the methods that an address takes; Starlette names those of its first route only."""
    return [
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]
