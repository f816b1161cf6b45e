"""Identifies the caller of a request, and checks what the caller may do.

A caller is identified in one of three ways. A program sends a token (`Authorization: Bearer …`). A
person signs in with one and gets a signed cookie (`sessions`). Where no token is configured, every
caller on this machine may do everything.

Each route requires a scope (`Requires`). The caller is identified before, by a dependency of the
whole router (`identify`, or the application's own): that one can be replaced, the scopes can't.
"""

from __future__ import annotations

import hmac
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import SplitResult, urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from pgworker.api.problems import NotSignedIn, Refused
from pgworker.api.service import get_service
from pgworker.api.sessions import COOKIE, Principal
from pgworker.models import Scope
from pgworker.settings import is_loopback

if TYPE_CHECKING:
    from pgworker.api.service import Service

CSRF_FIELD = "csrf_token"
CSRF_HEADER = "X-CSRF-Token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Proxies add one of these. One that adds none looks like a local program (docs/api.md).
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")

bearer = HTTPBearer(auto_error=False, description="a token of PGWORKER_API_TOKENS")


async def identify(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Principal:
    """Return the caller.

    Raises:
        NotSignedIn: the caller sends no token or cookie of ours.
        Refused: 403, a foreign page or machine asks.
    """
    service = get_service(request)
    if not service.platform.settings.api_tokens:
        return _identify_local(request, service)
    if credentials is not None:
        token = service.sessions.find_token(credentials.credentials)
        if token is None:
            raise NotSignedIn("there is no such token")
        return Principal(token.name, token.scope, "token")
    if "authorization" in request.headers:
        # Of another scheme, such as Basic, or malformed: FastAPI has ignored it.
        raise NotSignedIn("send the token as Authorization: Bearer TOKEN")
    cookie = request.cookies.get(COOKIE)
    principal = None if cookie is None else service.sessions.get_principal(cookie)
    if principal is None:
        raise NotSignedIn("send a token as Authorization: Bearer TOKEN, or sign in")
    return principal


def _identify_local(request: Request, service: Service) -> Principal:
    """Admit a caller on this machine that asks for this machine.

    The Host must be this machine as well: a foreign name that resolves to loopback is a page of
    its owner that uses our user's browser (DNS rebinding). A request with a proxy's headers is
    refused, because the proxy is local but its callers may be anywhere.
    """
    forwarded = next((name for name in FORWARDED if name in request.headers), None)
    client = request.client.host if request.client is not None else ""
    host = _split(f"//{request.headers.get('host', '')}").hostname or ""
    if forwarded is not None or not is_loopback(client) or not is_loopback(host):
        raise Refused(
            HTTPStatus.FORBIDDEN,
            "without PGWORKER_API_TOKENS only this machine may call, by a loopback name",
        )
    return Principal("local", Scope.ADMIN, "local", service.sessions.local_csrf_token)


def _split(url: str) -> SplitResult:
    """Split a URL; a malformed one has no parts."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


class Requires:
    """A dependency: returns the caller, or refuses one whose scope isn't enough.

    A write from a browser must come from one of our pages: its Origin is ours, and it carries the
    page's CSRF token, as a form's field or a header. There is no library for it, because those for
    FastAPI keep the token in a second cookie; here it is part of the signed session, and a caller
    without a cookie (a token, a local program) needs none.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Principal:
        """Return the caller.

        Raises:
            Refused: 403, the caller may not.
        """
        principal: Principal = request.state.pgworker_principal
        if not principal.scope.includes(self.scope):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                f"{principal.name} has the scope {principal.scope}; this needs {self.scope}",
            )
        if request.method not in SAFE_METHODS and principal.via in {"session", "local"}:
            await _refuse_foreign_page(request, principal)
        return principal


async def _refuse_foreign_page(request: Request, principal: Principal) -> None:
    """Refuse a write that a browser sends for a page that isn't ours.

    Current browsers say in `Sec-Fetch-Site` where a request comes from, older ones in `Origin`. A
    browser that sends neither is stopped by the token: a foreign page can't read ours to find it.
    """
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if (origin is not None and _split(origin).netloc != request.headers.get("host")) or (
        # `none`: the person opened the address themselves.
        site not in {None, "same-origin", "none"}
    ):
        raise Refused(HTTPStatus.FORBIDDEN, "this request comes from a page of another site")
    is_browser = origin is not None or site is not None
    if principal.via == "local" and not is_browser:
        # A program on this machine: it sends no cookie, so no page can act in its name.
        return
    presented = request.headers.get(CSRF_HEADER) or await _get_form_field(request, CSRF_FIELD)
    # As bytes: compare_digest refuses text that isn't ASCII, and a header may hold any.
    if not hmac.compare_digest(presented.encode(errors="replace"), principal.csrf_token.encode()):
        raise Refused(
            HTTPStatus.FORBIDDEN,
            "the page is too old, or not from this server: reload it and try again",
        )


async def _get_form_field(request: Request, name: str) -> str:
    """Return a field of a submitted form; empty when there is none.

    Starlette keeps the parsed form, so that the route can read it again.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0]
    if content_type not in {"application/x-www-form-urlencoded", "multipart/form-data"}:
        return ""
    value = (await request.form()).get(name)
    return value if isinstance(value, str) else ""


def remember(access: Any) -> Any:
    """Return a dependency that lets `access` identify the caller, and keeps it for the routes.

    On the request's state, because a route can't depend on a function that it doesn't know.
    """

    # Not Annotated: it would be looked up by name, and `access` is no name of this module.
    async def remembered(request: Request, principal: Principal = Depends(access)) -> None:  # noqa: B008
        request.state.pgworker_principal = principal

    return remembered


# For routes that only need the scope.
READ, OPERATE, ADMIN = (Depends(Requires(scope)) for scope in Scope)
# For routes that need the caller, too.
MayRead = Annotated[Principal, READ]
MayOperate = Annotated[Principal, OPERATE]
MayAdminister = Annotated[Principal, ADMIN]
