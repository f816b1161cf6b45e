"""The list of clients, and the clients that failed with the same error."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, BeforeValidator

from pgworker.api.auth import MayRead
from pgworker.api.console.rendering import PageRoute, get_path, render_page
from pgworker.api.problems import Refused
from pgworker.api.service import ServiceDep
from pgworker.models import ClientStatus, ErrorKind
from pgworker.status.pages import Filter

PAGE_SIZE = 50
# Without pages: a group this large is retried as a whole, not read.
FAILURES_SHOWN = 500

router = APIRouter(route_class=PageRoute)


# A form sends every field, also those that were left empty.
EmptyIsNone = BeforeValidator(lambda value: value or None)


class Filters(BaseModel):
    """The query of the list; an empty field doesn't filter."""

    q: str = ""
    status: Annotated[ClientStatus | None, EmptyIsNone] = None
    phase: str = ""
    kind: Annotated[ErrorKind | None, EmptyIsNone] = None
    after: str = ""

    @property
    def wanted(self) -> Filter:
        """The filter of the list."""
        return Filter(
            status=self.status,
            kind=self.kind,
            phase=self.phase or None,
            text=self.q.strip() or None,
        )

    @property
    def chosen(self) -> dict[str, str]:
        """The fields that filter, as in an address."""
        return {
            name: str(value)
            for name in ("q", "status", "phase", "kind")
            if (value := getattr(self, name))
        }


@router.get("/admin/provisioning/clients", name="console_clients")
async def list_clients(
    request: Request, service: ServiceDep, principal: MayRead, asked: Annotated[Filters, Query()]
) -> Response:
    """List clients, newest first.

    Raises:
        BadCursor: of `after`.
    """
    found = await service.pages.list_clients(
        asked.wanted, limit=PAGE_SIZE, cursor=asked.after or None
    )
    return render_page(
        request,
        "clients.html",
        principal=principal,
        asked=asked,
        is_filtered=bool(asked.chosen),
        statuses=list(ClientStatus),
        kinds=list(ErrorKind),
        phases=await service.status.list_phases(),
        rows=found.rows,
        here=_get_address(request, asked.chosen | {"after": asked.after}),
        first_page=_get_address(request, asked.chosen) if asked.after else None,
        next_page=_get_address(request, asked.chosen | {"after": found.next_cursor})
        if found.next_cursor
        else None,
    )


@router.get("/admin/provisioning/errors/{key}", name="console_failures")
async def list_failures(
    request: Request, service: ServiceDep, principal: MayRead, key: str
) -> Response:
    """List the clients that failed with the same error.

    Raises:
        Refused: 404, no client is failed with it any more.
    """
    group = await service.status.get_failed_group(key)
    if group is None:
        raise Refused(HTTPStatus.NOT_FOUND, "no client is failed with that error any more")
    return render_page(
        request,
        "failures.html",
        principal=principal,
        group=group,
        rows=await service.status.list_clients_of_group(key, limit=FAILURES_SHOWN),
    )


def _get_address(request: Request, query: dict[str, str]) -> str:
    """Return the list's path with those fields of the query that are set."""
    given = urlencode({name: value for name, value in query.items() if value})
    path = get_path(request, "console_clients")
    return f"{path}?{given}" if given else path
