"""The first page: what is stuck, why, and what is safe to press."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgworker.api.console.rendering import error_page, page
from pgworker.api.console.telling import said_of
from pgworker.errors import PgworkerError
from pgworker.status.overview import get_overview

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from pgworker.api.service import Service
    from pgworker.api.sessions import Principal


async def overview(request: Request, service: Service, principal: Principal) -> Response:
    """Return the first page. Its route is the API's, which lets the Accept header decide."""
    try:
        seen = await get_overview(
            service.platform.pool, service.platform.settings, service.progresses
        )
    except PgworkerError as error:
        return error_page(request, error)
    return page(request, "overview.html", principal=principal, seen=seen, said=said_of(request))
