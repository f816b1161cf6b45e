"""ETag and 304: whoever polls gets the body only when it has changed (RFC 9110, 8.8.3, 13.1.2)."""

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


def answer(request: Request, body: BaseModel) -> Response:
    """Return the body as JSON, or 304 when the client has it."""
    return conditional(request, body.model_dump_json().encode(), "application/json")


def conditional(request: Request, content: bytes, media_type: str) -> Response:
    """Return the content, or 304 when the client has it.

    The tag is of the content: what a list shows depends on several tables and on the time, and
    the few rows of a page are read quickly.
    """
    tag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if _has(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


def _has(if_none_match: str, tag: str) -> bool:
    known = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    return tag in known or "*" in known
