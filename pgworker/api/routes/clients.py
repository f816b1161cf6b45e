"""Clients and their provisioning."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from pgworker.api.auth import READ
from pgworker.api.problems import ProblemRoute
from pgworker.api.service import TheService

router = APIRouter(route_class=ProblemRoute, tags=["clients"])


@router.get("/clients", dependencies=[READ])
async def list_clients(service: TheService) -> list[dict[str, Any]]:
    """List clients, newest first."""
    return await service.operations.clients(limit=50)
