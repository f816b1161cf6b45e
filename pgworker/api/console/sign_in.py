"""Signing in with a token, and out."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from pgworker.api.auth import READ
from pgworker.api.console.rendering import PageRoute, page, path_of
from pgworker.api.service import ServiceDep

router = APIRouter(route_class=PageRoute)
open_router = APIRouter(route_class=PageRoute)


@open_router.get("/admin/provisioning/sign-in", name="console_sign_in")
async def ask(request: Request) -> Response:
    """Ask for a token."""
    return _form(request)


@open_router.post("/admin/provisioning/sign-in")
async def sign_in(
    request: Request, service: ServiceDep, token: Annotated[str, Form(max_length=512)]
) -> Response:
    """Give the browser a cookie that stands for the token."""
    address = request.client.host if request.client is not None else ""
    service.attempts.take(address)
    found = service.sessions.find_token(token.strip())
    if found is None:
        return _form(request, refusal="there is no such token", status=HTTPStatus.UNAUTHORIZED)
    service.attempts.forget(address)
    answer = RedirectResponse(path_of(request, "overview"), HTTPStatus.SEE_OTHER)
    service.sessions.start(found, request, answer)
    return answer


@router.post("/admin/provisioning/sign-out", name="console_sign_out", dependencies=[READ])
async def sign_out(request: Request, service: ServiceDep) -> Response:
    """Take the cookie back."""
    answer = RedirectResponse(path_of(request, "console_sign_in"), HTTPStatus.SEE_OTHER)
    service.sessions.end(answer)
    return answer


def _form(
    request: Request, *, refusal: str | None = None, status: HTTPStatus = HTTPStatus.OK
) -> Response:
    return page(
        request,
        "sign_in.html",
        principal=None,
        status=status,
        refusal=refusal,
        action=path_of(request, "console_sign_in"),
    )
