"""Errors as RFC 9457 `application/problem+json`, with a sentence for the person who reads them.

It is part of the routes (`ProblemRoute`) instead of an exception handler, because an application
that includes them keeps its own handlers.
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
# Not looked up by the route's name: an error may come before there is a route.
SIGN_IN_PATH = "/admin/provisioning/sign-in"
# The status code of each error that is raised on purpose; of all others it is 500.
_STATUS_CODES: dict[type[PgworkerError], HTTPStatus] = {
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
# A fail-over takes about as long; the worker itself tries again sooner.
RETRY_AFTER_SECONDS = 5
# The largest body that makes sense is a client with 16 KiB of settings (shapes), which JSON's
# escapes may make a few times longer.
MAX_BODY_BYTES = 64 * 1024
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# For answers that aren't pages: a browser that shows one must not run anything in it. The pages of
# the console set headers of their own (`rendering.HEADERS`).
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
    """A request that is answered with a problem of this status code."""

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
    """The caller is unknown: 401, or the sign-in page for a browser."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": 'Bearer realm="pgworker"'}
        )


def document_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of the problems that a route may answer with.

    Args:
        statuses: the HTTP status codes, each described by the same schema `Problem`.
    """
    return {
        status: {
            "model": Problem,
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def make_problem(
    status: int,
    detail: str,
    *,
    errors: list[Mistake] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem as a response.

    Args:
        status: the HTTP status code.
        detail: a sentence for the person who reads it.
        errors: what is wrong with the request, if that is the problem.
        headers: such as `Retry-After`.
    """
    body = Problem(
        title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors
    ).model_dump(exclude_none=True)
    return secure(JSONResponse(body, status, headers=headers, media_type=PROBLEM_JSON))


class ProblemRoute(APIRoute):
    """A route that answers every error with a problem, in whatever application it is included."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the route's handler."""
        handle = super().get_route_handler()

        async def handle_or_refuse(request: Request) -> Response:
            try:
                return secure(await handle(_limit_body(request)))
            except (HTTPException, RequestValidationError, PgworkerError) as error:
                return make_problem_from_error(request, error)

        return handle_or_refuse


def _limit_body(request: Request) -> Request:
    """Return the request with a limit to its body.

    Not FastAPI's `max_body_size`, which answers with a text of Starlette's instead of a problem.
    """
    too_large = Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is longer than {MAX_BODY_BYTES} bytes"
    )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > MAX_BODY_BYTES:
        raise too_large
    received = 0

    # A chunked body announces no length: it is counted as it comes.
    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise too_large
        return message

    return Request(request.scope, receive)


def secure(response: Response) -> Response:
    """Add the security headers that the response doesn't set itself."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def make_problem_from_error(request: Request, error: Exception) -> Response:
    """Return an error as a response: a problem, or for a browser the way to the sign-in page."""
    match error:
        case NotSignedIn() if wants_html(request) and request.method == "GET":
            return RedirectResponse(SIGN_IN_PATH, HTTPStatus.SEE_OTHER)
        case Refused():
            return make_problem(
                error.status_code, error.detail, errors=error.errors, headers=error.headers
            )
        case HTTPException():
            detail = _DETAILS.get(error.status_code, error.detail)
            return make_problem(error.status_code, detail, headers=error.headers)
        case RequestValidationError():
            return _make_problem_from_mistakes(error)
        case PgworkerError():
            return _make_problem_from_ours(request, error)
    # A bug. The log has the traceback; the caller learns nothing about our inside.
    return make_problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error: the log has the details")


# Starlette's own are single words, such as `Not Found`.
_DETAILS: dict[int, str] = {
    HTTPStatus.NOT_FOUND: "there is nothing at this address",
    HTTPStatus.METHOD_NOT_ALLOWED: (
        "this address does not support that method; the Allow header lists those that it supports"
    ),
}


def _make_problem_from_mistakes(error: RequestValidationError) -> Response:
    """Return a request that doesn't fit the route, with each mistake by its field."""
    mistakes = [
        Mistake(where=".".join(str(part) for part in each["loc"]), what=str(each["msg"]))
        for each in error.errors()
    ]
    detail = "; ".join(f"{each.where}: {each.what}" for each in mistakes)
    return make_problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=mistakes)


def _make_problem_from_ours(request: Request, error: PgworkerError) -> Response:
    """Return an error that pgworker raises on purpose; its message is for the caller as well."""
    status = next(
        (code for kind, code in _STATUS_CODES.items() if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("request_failed", path=request.url.path, error=str(error))
    headers = None
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return make_problem(status, str(error), headers=headers)


def wants_html(request: Request) -> bool:
    """Return whether a browser asks for a page; a request without `Accept` gets JSON."""
    return "text/html" in request.headers.get("accept", "")


def handle_errors(app: FastAPI) -> None:
    """Answer with a problem as well where no route of ours was reached."""
    app.add_exception_handler(HTTPException, _handle)
    app.add_exception_handler(RequestValidationError, _handle)
    app.add_exception_handler(Exception, _handle)


async def _handle(request: Request, error: Exception) -> Response:
    """Return the problem; for a 405 with the `Allow` that RFC 9110, 15.5.6 asks for."""
    response = make_problem_from_error(request, error)
    if response.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(_list_methods(request))
    return response


def _list_methods(request: Request) -> list[str]:
    """Return the methods of an address; Starlette's `Allow` has those of its first route only."""
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]
