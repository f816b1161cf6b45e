"""Static files of the console. They are few, and pages load nothing from another server."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from pgworker.api.problems import ProblemRoute, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
YEAR_SECONDS = 365 * 24 * 3600

router = APIRouter(route_class=ProblemRoute)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file, read once.

    Attributes:
        version: a hash of its content. It is part of the file's address, so that browsers may cache
            the file for ever, and get a new one with the next release.
    """

    content: bytes = field(repr=False)
    media_type: str
    version: str


def _read(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Asset]]:
    """Yield the files of a folder and of those in it, by their path below the first one.

    By `importlib.resources`, so that the package may be in a zip file.
    """
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _read(entry, f"{prefix}{entry.name}/")
            continue
        media_type = MEDIA_TYPES.get(f".{entry.name.rpartition('.')[2]}")
        if media_type is not None:
            content = entry.read_bytes()
            version = hashlib.sha256(content).hexdigest()[:12]
            yield f"{prefix}{entry.name}", Asset(content, media_type, version)


# A name is looked up here and not on the disk: no path can lead out of the folder.
ASSETS = dict(_read(files("pgworker.api.console") / "static"))


@router.get("/admin/provisioning/static/{name:path}", name="console_asset")
async def asset(name: str) -> Response:
    """Return a static file."""
    found = ASSETS.get(name)
    if found is None:
        raise Refused(HTTPStatus.NOT_FOUND, "there is no such file")
    return Response(
        found.content,
        media_type=found.media_type,
        headers={
            "Cache-Control": f"public, max-age={YEAR_SECONDS}, immutable",
            "X-Content-Type-Options": "nosniff",
        },
    )
