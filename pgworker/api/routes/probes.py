"""Whether the process lives, and whether it is ready. Nobody needs a token for that."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from pgworker.api.problems import ProblemRoute

router = APIRouter(route_class=ProblemRoute, tags=["probes"])


class Health(BaseModel):
    """The process answers."""

    status: str = "ok"


@router.get("/healthz")
async def healthz() -> Health:
    """Tell that the process lives; asks nobody."""
    return Health()
