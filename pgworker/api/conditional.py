"""ETag and 304: a client that polls gets a body only when it has changed (RFC 9110, 8.8.3)."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

if TYPE_CHECKING:
    from pydantic import BaseModel
    from starlette.requests import Request

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "Not modified since the answer with the ETag of If-None-Match"}
}


def make_json_response(request: Request, body: BaseModel) -> Response:
    """Return the body as JSON, or 304 when the client has it."""
    return make_response(request, body.model_dump_json().encode(), "application/json")


def make_response(request: Request, content: bytes, media_type: str) -> Response:
    """Return the content, or 304 when the client sent its tag in `If-None-Match`.

    The tag is a hash of the content. Nothing cheaper would do: what a list shows depends on several
    tables and on the time, and the few rows of a page are read quickly.
    """
    tag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if _matches(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


def _matches(if_none_match: str, tag: str) -> bool:
    """Return whether the header names the tag; weakly, as RFC 9110, 13.1.2 asks for."""
    known = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    return tag in known or "*" in known
