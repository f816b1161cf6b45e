"""The operator's overview: JSON, or the console for a browser."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from pgworker.api import console
from pgworker.api.auth import MayRead
from pgworker.api.problems import ProblemRoute, wants_html
from pgworker.api.service import TheService

router = APIRouter(route_class=ProblemRoute, tags=["admin"])


@router.get("/admin/provisioning", response_model=None)
async def overview(request: Request, service: TheService, principal: MayRead) -> Any:
    """Tell how the queue is, with the queued and failed clients and their most recent error."""
    if wants_html(request):
        return await console.overview(request, service, principal)
    return {"health": await service.operations.health()}
