"""Where the routes find what they work with: on the application, while its lifespan runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Request

if TYPE_CHECKING:
    from pgworker.api.service import Service


def service_of(request: Request) -> Service:
    """Return the service of the application that serves this request."""
    service: Service | None = getattr(request.app.state, "pgworker", None)
    if service is None:
        msg = "pgworker's routes need its lifespan: FastAPI(lifespan=pgworker.lifespan())"
        raise RuntimeError(msg)
    return service
