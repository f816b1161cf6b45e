"""Turns values into pages: the templates, what they may call, and the headers of every page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException

from pgworker.api.console.assets import ASSETS
from pgworker.api.console.charts import latency_chart
from pgworker.api.problems import PROBLEM_JSON, Problem, as_response, wants_html
from pgworker.errors import PgworkerError
from pgworker.models import ClientStatus, Scope
from pgworker.status.durations import precise_duration, relative
from pgworker.status.overdue import DUE_TOO_LONG

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.requests import Request
    from starlette.responses import Response

    from pgworker.api.sessions import Principal

HEADERS = {
    # Everything comes from here, and nothing is inline: what slips into a page can't run.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "font-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; "
        "base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # A page holds the CSRF token of one session, and what only its scope may see.
    "Cache-Control": "no-store",
}

TONES = {
    ClientStatus.READY: "good",
    ClientStatus.FAILED: "bad",
    ClientStatus.QUEUED: "wait",
    ClientStatus.CREATING_PROJECT: "work",
    ClientStatus.WAITING_FOR_PROJECT: "work",
    ClientStatus.SCHEMA_SYNCING: "work",
    ClientStatus.SMOKE_CHECKING: "work",
}


@dataclass(frozen=True, slots=True)
class Said:
    """What a page tells of the button that was pressed before."""

    text: str
    tone: str = "good"


def page(
    request: Request,
    template: str,
    *,
    principal: Principal | None,
    status: int = HTTPStatus.OK,
    **values: Any,
) -> HTMLResponse:
    """Return a page.

    Args:
        request: it answers.
        template: name of its file.
        principal: who asks; None before they have signed in.
        status: of the answer.
        values: what the template shows.
    """

    def may(scope: str) -> bool:
        return principal is not None and principal.scope.includes(Scope(scope))

    text = _TEMPLATES.get_template(template).render(
        principal=principal,
        may=may,
        path=lambda route, /, **parameters: path_of(request, route, **parameters),
        asset=lambda name: f"{path_of(request, 'console_asset', name=name)}?v={_version(name)}",
        **{"said": None, "section": None} | values,
    )
    return HTMLResponse(text, status, headers=HEADERS)


def path_of(request: Request, route: str, /, **parameters: Any) -> str:
    """Return the path of a route by its name."""
    if route == "overview":
        # Its route belongs to the API, and its name to nobody; the list of clients lies below it.
        return request.url_for("console_clients").path.removesuffix("/clients")
    return request.url_for(route, **parameters).path


def _version(name: str) -> str:
    return ASSETS[name].version


# -- errors -----------------------------------------------------------------------------------


class PageRoute(APIRoute):
    """A route that answers an error with a page, to a browser; else with the API's problem."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the route's handler."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except (HTTPException, RequestValidationError, PgworkerError) as error:
                return error_page(request, error)

        return answered


def error_page(request: Request, error: Exception) -> Response:
    """Return the page that tells of an error; a problem where no browser asks."""
    told = as_response(request, error)
    if not wants_html(request) or told.media_type != PROBLEM_JSON:
        return told
    return page(
        request,
        "problem.html",
        principal=getattr(request.state, "pgworker_principal", None),
        status=told.status_code,
        problem=Problem.model_validate_json(bytes(told.body)),
    )


# -- filters ----------------------------------------------------------------------------------


def _capital(text: str | None) -> str:
    """Return the sentence with a capital; a name of ours stays as it is."""
    if not text or "_" in text.partition(" ")[0]:
        return text or ""
    return text[0].upper() + text[1:]


_TEMPLATES = Environment(
    loader=PackageLoader("pgworker.api.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "capital": _capital,
    "exact": lambda at: f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
    "is_late": lambda at: datetime.now(UTC) - at > DUE_TOO_LONG,
    "is_past": lambda at: at <= datetime.now(UTC),
    "iso": lambda at: at.isoformat(),
    "latency_chart": latency_chart,
    "number": lambda number: f"{number:,}",
    "precise": precise_duration,
    "relative": relative,
    "tone": lambda status: TONES.get(status, "quiet"),
    "words": lambda status: str(status).replace("_", " "),
}
