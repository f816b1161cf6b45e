"""Goes back to a page after a button was pressed, and tells there what came of it.

The address carries a word of this table and a number, never a text: nobody can put words of their
own on our pages with a link.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from fastapi.responses import RedirectResponse

from pgworker.api.console.rendering import Said, path_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

SAYINGS = {
    "retried": Said("Back in line."),
    "group-retried": Said("Back in line: {}."),
    "group-gone": Said("None of them is failed any more: somebody was faster.", "warn"),
    "cancelled": Said("Cancelled. What exists at the provider stays there."),
    "not-cancelled": Said("There was nothing left to cancel.", "warn"),
    "paused": Said("Paused. What runs goes on; no further phase starts.", "warn"),
    "resumed": Said("Resumed. Workers go on at once."),
}


def go_back(
    request: Request, name: str, done: str, *, number: int = 0, **parts: object
) -> Response:
    """Return the answer to a form: the page to show, which tells what was done."""
    query = urlencode({"done": done} | ({"n": number} if number else {}))
    return RedirectResponse(f"{path_of(request, name, **parts)}?{query}", HTTPStatus.SEE_OTHER)


def said_of(request: Request) -> Said | None:
    """Return what the page has to tell first."""
    said = SAYINGS.get(request.query_params.get("done", ""))
    number = request.query_params.get("n", "0")
    if said is None or not number.isdecimal():
        return None
    clients = "1 client" if number == "1" else f"{int(number):,} clients"
    return Said(said.text.format(clients), said.tone)
