"""Signing in with a token, and out."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from pgworker.api.auth import READ
from pgworker.api.console.rendering import OVERVIEW, PageRoute, get_path, render_page
from pgworker.api.service import ServiceDep

router = APIRouter(route_class=PageRoute)
open_router = APIRouter(route_class=PageRoute)


@open_router.get("/admin/provisioning/sign-in", name="console_sign_in")
async def ask_for_token(request: Request) -> Response:
    """Ask for a token."""
    return _render_form(request)


@open_router.post("/admin/provisioning/sign-in")
async def sign_in(
    request: Request, service: ServiceDep, token: Annotated[str, Form(max_length=512)]
) -> Response:
    """Give the browser a cookie that stands for the token.

    Raises:
        Refused: 429, too many attempts came from this address.
    """
    # Behind a proxy this is the client's address only if uvicorn trusts the proxy's headers.
    address = request.client.host if request.client is not None else ""
    service.attempts.count(address)
    found = service.sessions.find_token(token.strip())
    if found is None:
        return _render_form(
            request, refusal="there is no such token", status=HTTPStatus.UNAUTHORIZED
        )
    service.attempts.reset(address)
    response = RedirectResponse(get_path(request, OVERVIEW), HTTPStatus.SEE_OTHER)
    service.sessions.start(found, request, response)
    return response


@router.post("/admin/provisioning/sign-out", name="console_sign_out", dependencies=[READ])
async def sign_out(request: Request, service: ServiceDep) -> Response:
    """Remove the cookie."""
    response = RedirectResponse(get_path(request, "console_sign_in"), HTTPStatus.SEE_OTHER)
    service.sessions.end(response)
    return response


def _render_form(
    request: Request, *, refusal: str | None = None, status: HTTPStatus = HTTPStatus.OK
) -> Response:
    return render_page(
        request,
        "sign_in.html",
        principal=None,
        status=status,
        refusal=refusal,
        action=get_path(request, "console_sign_in"),
    )
