"""Callers, and the signed cookies that stand for the token of a person."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from itsdangerous import BadSignature, URLSafeTimedSerializer

from pgworker.settings import token_digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from starlette.requests import Request
    from starlette.responses import Response

    from pgworker.models import ApiToken, Scope

COOKIE = "pgworker_session"


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request.

    Attributes:
        name: of the token, for the audit trail.
        scope: what the caller may do.
        via: how the caller was identified.
        csrf_token: what a form of the caller's must carry (field `csrf_token`); empty for programs,
            which send no cookie that a foreign page could use.
    """

    name: str
    scope: Scope
    via: Literal["token", "session", "local", "application"] = "application"
    csrf_token: str = ""


class Sessions:
    """Signed cookies that stand for a token. The server stores nothing about them."""

    def __init__(self, keys: Sequence[bytes], tokens: Sequence[ApiToken], age: timedelta) -> None:
        """Sign with the first key, verify with all. A cookie ends with its token, or at `age`."""
        # itsdangerous signs with the last key of its list.
        self._serializer = URLSafeTimedSerializer(list(reversed(keys)), salt="pgworker session")
        self._tokens = tuple(tokens)
        self._age = age
        # For callers on this machine, where no token is configured: they have no cookie that could
        # carry a token of their own.
        self.local_csrf_token = secrets.token_urlsafe(24)

    def find_token(self, presented: str) -> ApiToken | None:
        """Return the configured token that was presented; None when there is no such token."""
        return self._find_digest(token_digest(presented))

    def start(self, token: ApiToken, request: Request, response: Response) -> None:
        """Give the browser a cookie that stands for the token."""
        value = self._serializer.dumps(
            {"token": token.digest.hex(), "csrf": secrets.token_urlsafe(24)}
        )
        response.set_cookie(
            COOKIE,
            value,
            max_age=int(self._age.total_seconds()),
            path="/",
            # On loopback there may be no TLS; a secure cookie would never be sent back there.
            secure=request.url.scheme == "https",
            httponly=True,
            # A link on another site opens the console without the session.
            samesite="strict",
        )

    def end(self, response: Response) -> None:
        """Remove the cookie."""
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")

    def get_principal(self, cookie: str) -> Principal | None:
        """Return the caller of a cookie; None when it is forged, old, or its token was removed."""
        # The age is checked here as well: a thief's browser wouldn't delete the cookie in time.
        try:
            content = self._serializer.loads(cookie, max_age=int(self._age.total_seconds()))
            digest, csrf = bytes.fromhex(content["token"]), str(content["csrf"])
        except (BadSignature, KeyError, TypeError, ValueError):
            return None
        token = self._find_digest(digest)
        return None if token is None else Principal(token.name, token.scope, "session", csrf)

    def _find_digest(self, digest: bytes) -> ApiToken | None:
        """Return the token with that digest; compares all of them in constant time."""
        found = None
        # To the end, so that the time doesn't depend on which token matches.
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found
