"""Renders pages: the templates, the functions that they call, and the headers of every page."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException

from pgworker.api.console.assets import ASSETS
from pgworker.api.console.charts import draw_latency_chart
from pgworker.api.problems import PROBLEM_JSON, Problem, make_problem_from_error, wants_html
from pgworker.errors import PgworkerError
from pgworker.models import ClientStatus, Scope
from pgworker.status.durations import format_precise_duration, format_relative
from pgworker.status.overdue import DUE_TOO_LONG

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.requests import Request
    from starlette.responses import Response

    from pgworker.api.sessions import Principal

# The name of the route of the first page, which belongs to the API (`routes.admin`).
OVERVIEW = "admin_overview"

HEADERS = {
    # Everything comes from this server, and nothing is inline: injected content can't run.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "font-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; "
        "base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # A page has the CSRF token of one session, and shows what its scope may see.
    "Cache-Control": "no-store",
}

# Classes of the style sheet; all other statuses are `quiet`.
_TONES = {
    ClientStatus.READY: "good",
    ClientStatus.FAILED: "bad",
    ClientStatus.QUEUED: "wait",
    ClientStatus.CREATING_PROJECT: "work",
    ClientStatus.WAITING_FOR_PROJECT: "work",
    ClientStatus.SCHEMA_SYNCING: "work",
    ClientStatus.SMOKE_CHECKING: "work",
}


def render_page(
    request: Request,
    template: str,
    *,
    principal: Principal | None,
    status: int = HTTPStatus.OK,
    **values: Any,
) -> HTMLResponse:
    """Return a page.

    Args:
        request: the one that it answers.
        template: name of the file.
        principal: the caller; None before sign-in.
        status: of the response.
        values: what the template shows.

    Raises:
        UndefinedError: the template names a value that isn't given.
    """

    def may(scope: str) -> bool:
        return principal is not None and principal.scope.includes(Scope(scope))

    text = _TEMPLATES.get_template(template).render(
        principal=principal,
        may=may,
        path=lambda route, /, **parameters: get_path(request, route, **parameters),
        overview_path=get_path(request, OVERVIEW),
        asset=lambda name: get_asset_path(request, name),
        **{"flash": None, "section": None} | values,
    )
    return HTMLResponse(text, status, headers=HEADERS)


def get_path(request: Request, route: str, /, **parameters: Any) -> str:
    """Return the path of a route by its name.

    By the request, because the application may serve us under a prefix (ASGI's `root_path`).

    Raises:
        NoMatchFound: there is no such route, or a parameter is missing.
    """
    return request.url_for(route, **parameters).path


def get_asset_path(request: Request, name: str) -> str:
    """Return the path of a static file, with the version of its content."""
    return f"{get_path(request, 'console_asset', name=name)}?v={ASSETS[name].version}"


# -- errors -----------------------------------------------------------------------------------


class PageRoute(APIRoute):
    """A route that answers an error with a page for a browser, else with the API's problem."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the route's handler."""
        handle = super().get_route_handler()

        async def handle_or_refuse(request: Request) -> Response:
            try:
                return await handle(request)
            except (HTTPException, RequestValidationError, PgworkerError) as error:
                return render_error(request, error)

        return handle_or_refuse


def render_error(request: Request, error: Exception) -> Response:
    """Return an error as a page; as a problem for anything but a browser."""
    response = make_problem_from_error(request, error)
    # A redirect to the sign-in page is no problem, and stays as it is.
    if not wants_html(request) or response.media_type != PROBLEM_JSON:
        return response
    return render_page(
        request,
        "problem.html",
        principal=getattr(request.state, "pgworker_principal", None),
        status=response.status_code,
        problem=Problem.model_validate_json(bytes(response.body)),
    )


# -- filters ----------------------------------------------------------------------------------


def _capitalize(text: str | None) -> str:
    """Return a sentence with a capital letter, unless it begins with an identifier."""
    if not text or "_" in text.partition(" ")[0]:
        return text or ""
    return text[0].upper() + text[1:]


_TEMPLATES = Environment(
    loader=PackageLoader("pgworker.api.console"),
    # Names of clients and errors of providers come from strangers.
    autoescape=True,
    # A misspelled name is an error, and not an empty place on the page.
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "capital": _capitalize,
    "exact": lambda at: f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
    "is_overdue": lambda at: datetime.now(UTC) - at > DUE_TOO_LONG,
    "is_past": lambda at: at <= datetime.now(UTC),
    "iso": lambda at: at.isoformat(),
    "latency_chart": draw_latency_chart,
    "number": lambda number: f"{number:,}",
    "precise": format_precise_duration,
    "relative": format_relative,
    "tone": lambda status: _TONES.get(status, "quiet"),
    "words": lambda status: str(status).replace("_", " "),
}
