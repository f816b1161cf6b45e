"""Messages about the button that was pressed before: a form redirects to a page, which shows one.

The address carries the name of a message and a number, never a text: a link can't put words of its
own on our pages.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

from fastapi.responses import RedirectResponse

from pgworker.api.console.rendering import get_path

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


class Flash(NamedTuple):
    """A message; `tone` is a class of the style sheet."""

    text: str
    tone: str = "good"


MESSAGES = {
    "retried": Flash("Queued again."),
    "group-retried": Flash("Queued again: {}."),
    "group-gone": Flash(
        "Nothing was retried: no client is failed with this error any more.", "warn"
    ),
    "cancelled": Flash("Cancelled. What exists at the provider stays there."),
    "not-cancelled": Flash("There was nothing left to cancel.", "warn"),
    "paused": Flash("Paused. Running phases end as usual; no further phase starts.", "warn"),
    "resumed": Flash("Resumed. Workers continue at once."),
}


def redirect_with_flash(
    request: Request, route: str, message: str, *, number: int = 0, **parts: object
) -> Response:
    """Return the response to a form: the page to show next.

    A redirect instead of a page, so that a reload doesn't submit the form again.

    Args:
        request: with the form.
        route: name of the page's route.
        message: name of the message (`MESSAGES`).
        number: how many clients it is about.
        parts: of the page's path.
    """
    query = urlencode({"done": message} | ({"n": number} if number else {}))
    path = get_path(request, route, **parts)
    return RedirectResponse(f"{path}?{query}", HTTPStatus.SEE_OTHER)


def get_flash(request: Request) -> Flash | None:
    """Return the message that the address of a page names."""
    flash = MESSAGES.get(request.query_params.get("done", ""))
    number = request.query_params.get("n", "0")
    if flash is None or not number.isdecimal():
        return None
    clients = "1 client" if number == "1" else f"{int(number):,} clients"
    return flash._replace(text=flash.text.format(clients))
