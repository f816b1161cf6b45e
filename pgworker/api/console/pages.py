"""The console's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from pgworker.api.problems import ProblemRoute

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from pgworker.api.auth import Principal
    from pgworker.api.service import Service

router = APIRouter(route_class=ProblemRoute)
open_router = APIRouter(route_class=ProblemRoute)


async def overview(request: Request, service: Service, principal: Principal) -> Response:  # noqa: ARG001
    """Return the first page."""
    return HTMLResponse("<!doctype html><title>pgworker</title>")
