"""The first page: what is stuck, why, and what a person can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgworker.api.console.flash import get_flash
from pgworker.api.console.rendering import render_error, render_page
from pgworker.errors import PgworkerError
from pgworker.status.overview import get_overview

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from pgworker.api.service import Service
    from pgworker.api.sessions import Principal


async def show_overview(request: Request, service: Service, principal: Principal) -> Response:
    """Return the first page.

    Errors become a page here and not in the route, which is the API's and answers with a problem.
    """
    platform = service.platform
    try:
        overview = await get_overview(platform.pool, platform.settings, service.progress)
    except PgworkerError as error:
        return render_error(request, error)
    return render_page(
        request,
        "overview.html",
        principal=principal,
        overview=overview,
        flash=get_flash(request),
    )
