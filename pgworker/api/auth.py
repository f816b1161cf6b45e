"""Who asks, and what they may do.

Three ways in. A program sends a token (`Authorization: Bearer …`). A person signs in with one and
gets a signed cookie. Where no token is configured, whoever is on this machine may do everything.

Every route asks for a scope (`Requires`). Who asks is found out before, by a dependency of the
whole router (`identify`, or the application's own): that one is exchangeable, the scopes are not.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from itsdangerous import BadSignature, URLSafeTimedSerializer

from pgworker.api.problems import NotSignedIn, Refused
from pgworker.api.state import service_of
from pgworker.models import ApiToken, Scope
from pgworker.settings import is_loopback, token_digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from starlette.responses import Response

    from pgworker.api.service import Service

COOKIE = "pgworker_session"
CSRF_FIELD = "csrf_token"
CSRF_HEADER = "X-CSRF-Token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")

bearer = HTTPBearer(auto_error=False, description="a token of PGWORKER_API_TOKENS")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks.

    Attributes:
        name: of the token, for the log.
        scope: what they may do.
        via: how they came in.
        csrf_token: what a form of theirs must carry (field `csrf_token`); empty for programs,
            which send no cookie that a foreign page could use.
    """

    name: str
    scope: Scope
    via: Literal["token", "session", "local", "application"] = "application"
    csrf_token: str = ""


class Sessions:
    """Signed cookies that stand for a token; nothing is kept of them."""

    def __init__(self, keys: Sequence[bytes], tokens: Sequence[ApiToken], age: timedelta) -> None:
        """Sign with the first key, verify with all. A cookie ends with its token, or at `age`."""
        # itsdangerous signs with the last one.
        self._serializer = URLSafeTimedSerializer(list(reversed(keys)), salt="pgworker session")
        self._tokens = tuple(tokens)
        self._age = age
        # Of whoever is on this machine, where no token is configured.
        self.local_csrf_token = secrets.token_urlsafe(24)

    def token_of(self, presented: str) -> ApiToken | None:
        """Return which configured token this is; compares all of them in constant time."""
        digest = token_digest(presented)
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def begin(self, token: ApiToken, request: Request, response: Response) -> None:
        """Give the browser a cookie that stands for the token."""
        value = self._serializer.dumps(
            {"token": token.digest.hex(), "csrf": secrets.token_urlsafe(24)}
        )
        response.set_cookie(
            COOKIE,
            value,
            max_age=int(self._age.total_seconds()),
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def end(self, response: Response) -> None:
        """Take the cookie back."""
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")

    def principal_of(self, cookie: str) -> Principal | None:
        """Return whose cookie this is; None when it is forged, old, or its token is no more."""
        try:
            content = self._serializer.loads(cookie, max_age=int(self._age.total_seconds()))
            digest, csrf = bytes.fromhex(content["token"]), str(content["csrf"])
        except (BadSignature, KeyError, TypeError, ValueError):
            return None
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                return Principal(token.name, token.scope, "session", csrf)
        return None


async def identify(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Principal:
    """Find out who asks.

    Raises:
        NotSignedIn: nobody we know.
        Refused: 403, a foreign page or machine asks.
    """
    service = service_of(request)
    if not service.platform.settings.api_tokens:
        return _local(request, service)
    if credentials is not None:
        token = service.sessions.token_of(credentials.credentials)
        if token is None:
            raise NotSignedIn("there is no such token")
        return Principal(token.name, token.scope, "token")
    if "authorization" in request.headers:
        raise NotSignedIn("send the token as Authorization: Bearer TOKEN")
    cookie = request.cookies.get(COOKIE)
    principal = None if cookie is None else service.sessions.principal_of(cookie)
    if principal is None:
        raise NotSignedIn("send a token as Authorization: Bearer TOKEN, or sign in")
    return principal


def _local(request: Request, service: Service) -> Principal:
    """Admit whoever is on this machine and asks this machine.

    The Host must be this machine as well: a foreign name that resolves to loopback is a page of
    its owner's that uses our user's browser (DNS rebinding). A proxy that tells of itself brings
    in the world.
    """
    forwarded = next((name for name in FORWARDED if name in request.headers), None)
    client = request.client.host if request.client is not None else ""
    host = _split(f"//{request.headers.get('host', '')}").hostname or ""
    if forwarded is not None or not is_loopback(client) or not is_loopback(host):
        raise Refused(
            HTTPStatus.FORBIDDEN,
            "without PGWORKER_API_TOKENS only this machine is served, by a loopback name",
        )
    return Principal("local", Scope.ADMIN, "local", service.sessions.local_csrf_token)


def _split(url: str) -> SplitResult:
    """Take a URL apart; one that can't be has no parts."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


class Requires:
    """A dependency: returns who asks, or refuses them what their scope doesn't include.

    A write that comes from a browser must come from a page of ours: its Origin is ours, and it
    carries the page's CSRF token, as a form's field or a header.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Principal:
        """Return who asks.

        Raises:
            Refused: 403, they may not.
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
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if (origin is not None and _split(origin).netloc != request.headers.get("host")) or (
        site not in {None, "same-origin", "none"}
    ):
        raise Refused(HTTPStatus.FORBIDDEN, "this comes from a page of another site")
    is_browser = origin is not None or site is not None
    if principal.via == "local" and not is_browser:
        return
    presented = request.headers.get(CSRF_HEADER) or await _form_field(request, CSRF_FIELD)
    if not hmac.compare_digest(presented.encode(errors="replace"), principal.csrf_token.encode()):
        raise Refused(
            HTTPStatus.FORBIDDEN, "the page is too old, or not ours: load it again and repeat"
        )


async def _form_field(request: Request, name: str) -> str:
    content_type = request.headers.get("content-type", "").partition(";")[0]
    if content_type not in {"application/x-www-form-urlencoded", "multipart/form-data"}:
        return ""
    value = (await request.form()).get(name)
    return value if isinstance(value, str) else ""


def remember(access: Any) -> Any:
    """Return a dependency that lets `access` find out who asks, and keeps it for the routes."""

    # Not Annotated: it would be looked up by name, and `access` is no name of this module.
    async def remembered(request: Request, principal: Principal = Depends(access)) -> None:  # noqa: B008
        request.state.pgworker_principal = principal

    return remembered


# For routes that only ask.
READ, OPERATE, ADMIN = (Depends(Requires(scope)) for scope in Scope)
# For routes that want to know who it is.
MayRead = Annotated[Principal, READ]
MayOperate = Annotated[Principal, OPERATE]
MayAdminister = Annotated[Principal, ADMIN]
