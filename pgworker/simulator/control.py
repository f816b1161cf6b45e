"""Routes for a test in another process: order faults, plant projects, read the ledger.

They are no part of Supabase's API. They require no token: the simulator listens on loopback only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pgworker.simulator.faults import (
    Answer,
    Becomes,
    Drop,
    ExtraFields,
    Hang,
    Truncated,
)
from pgworker.simulator.world import World

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """The body of `POST /__simulator__/faults`: the arguments of `Faults.order`."""

    operation: str
    fault: Annotated[
        Answer | Hang | Drop | Truncated | ExtraFields | Becomes, Field(discriminator="kind")
    ]
    nth: int = 1
    times: int | None = 1
    every: int = 1
    seconds: float | None = None
    project: str | None = None
    query: dict[str, str] = field(default_factory=dict)
    contains: str | None = None


@dataclass(frozen=True, slots=True)
class PlantRequest:
    """The body of `POST /__simulator__/projects`: the arguments of `Projects.plant`."""

    name: str
    organization: str | None = None
    status: str = "ACTIVE_HEALTHY"
    is_branch: bool = False
    region: str = "us-east-1"


ORDER_REQUEST = TypeAdapter(OrderRequest)
PLANT_REQUEST = TypeAdapter(PlantRequest)


def build_routes(world: World) -> list[Route]:
    """Return the routes under `/__simulator__`."""

    async def order_fault(request: Request) -> Response:
        wanted = ORDER_REQUEST.validate_json(await request.body())
        try:
            ordered = world.faults.order(
                **{name: getattr(wanted, name) for name in OrderRequest.__slots__}
            )
        except ValueError as error:
            return JSONResponse({"message": str(error)}, status_code=400)
        return JSONResponse(ordered.as_json(), status_code=201)

    async def list_orders(request: Request) -> Response:  # noqa: ARG001
        return JSONResponse([ordered.as_json() for ordered in world.faults.orders()])

    async def release(request: Request) -> Response:
        number = int(request.path_params["number"])
        for ordered in world.faults.orders():
            if ordered.number == number:
                ordered.release()
                return JSONResponse(ordered.as_json())
        return JSONResponse({"message": f"there is no fault {number}"}, status_code=404)

    async def clear(request: Request) -> Response:  # noqa: ARG001
        world.faults.clear()
        return Response(status_code=204)

    async def plant(request: Request) -> Response:
        wanted = PLANT_REQUEST.validate_json(await request.body())
        project = world.projects.plant(
            wanted.name,
            organization=wanted.organization,
            status=wanted.status,
            is_branch=wanted.is_branch,
            region=wanted.region,
        )
        return JSONResponse({"ref": project.ref, "name": project.name}, status_code=201)

    async def show_ledger(request: Request) -> Response:  # noqa: ARG001
        return JSONResponse(world.ledger.as_json())

    base = "/__simulator__"
    return [
        Route(f"{base}/faults", _report_mistakes(order_fault), methods=["POST"]),
        Route(f"{base}/faults", list_orders, methods=["GET"]),
        Route(f"{base}/faults", clear, methods=["DELETE"]),
        Route(f"{base}/faults/{{number:int}}", release, methods=["DELETE"]),
        Route(f"{base}/projects", _report_mistakes(plant), methods=["POST"]),
        Route(f"{base}/ledger", show_ledger, methods=["GET"]),
    ]


def _report_mistakes(endpoint: Endpoint) -> Endpoint:
    async def checked(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ValidationError as error:
            mistakes = [
                f"{'.'.join(str(part) for part in mistake['loc'])}: {mistake['msg']}"
                for mistake in error.errors(include_input=False)
            ]
            return JSONResponse({"message": mistakes}, status_code=400)

    return checked
