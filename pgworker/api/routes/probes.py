"""Whether the process lives, and whether it is ready. They need no token."""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from pgworker.api.problems import PROBLEM_JSON, Problem, ProblemRoute, Refused, document_problems
from pgworker.api.service import ServiceDep

router = APIRouter(route_class=ProblemRoute, tags=["probes"])


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Nothing is missing."""

    status: Literal["ready"] = "ready"


class MissingDependency(BaseModel):
    """A dependency that is missing, and what to do."""

    name: str
    what: str


class NotReady(Problem):
    """A problem that lists what is missing."""

    missing: list[MissingDependency]


@router.get("/healthz", responses=document_problems(503))
async def healthz(service: ServiceDep) -> Health:
    """Return 200 while the process lives: it answers, and its worker runs. Contacts no server."""
    # It doesn't ask the database: an outage must not make a supervisor restart all workers, which
    # would end their running phases and mend nothing.
    daemon = service.daemon
    if daemon is not None and daemon.started.is_set() and not daemon.is_running:
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "the worker of this process has ended: restart the process",
        )
    return Health()


@router.get(
    "/readyz",
    response_model=Readiness,
    responses={
        503: {
            "description": "Something is missing",
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/NotReady"}}},
            "model": NotReady,
        }
    },
)
async def readyz(service: ServiceDep) -> Response | Readiness:
    """Return 200 when the process can do its work; 503 names each dependency that is missing."""
    missing = await service.readiness.missing()
    if not missing:
        return Readiness()
    body = NotReady(
        title=HTTPStatus.SERVICE_UNAVAILABLE.phrase,
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        detail="; ".join(f"{each.name}: {each.what}" for each in missing),
        missing=[MissingDependency(name=each.name, what=each.what) for each in missing],
    )
    return Response(
        body.model_dump_json(exclude_none=True),
        HTTPStatus.SERVICE_UNAVAILABLE,
        media_type=PROBLEM_JSON,
        headers={"Cache-Control": "no-store"},
    )
