"""A client's status as a small picture, for pages that have no room for more."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from pgworker.models import ClientStatus

if TYPE_CHECKING:
    from pgworker.status.progress import Progress

# White text has a contrast of at least 4.5 on them (WCAG 2.2, 1.4.3).
_GREEN, _RED, _GREY, _BLUE = "#1a7f37", "#b3261e", "#57606a", "#0b5cad"
# Blue is for all others: work is in progress.
_COLOURS = {
    ClientStatus.READY: _GREEN,
    ClientStatus.FAILED: _RED,
    ClientStatus.NOT_PROVISIONED: _GREY,
    ClientStatus.CANCELLED: _GREY,
    ClientStatus.DEPROVISIONED: _GREY,
}
_LABEL = "provisioning"
# Of a letter of 11 px, about. We don't know the fonts of the reader, so `textLength` makes the
# browser stretch the text to the width that was computed with it.
_LETTER_WIDTH = 6.4
_PADDING = 8


def draw_badge(progress: Progress) -> str:
    """Return an SVG of the client's status.

    Two boxes side by side, in the size that such badges usually have (20 px high). The title, for
    screen readers and as a tooltip, is the client's sentence.
    """
    row = progress.client
    status = row.status or ClientStatus.NOT_PROVISIONED
    words = status.replace("_", " ")
    if row.phase_number and not progress.is_final:
        words += f" {row.phase_number}/{row.phase_count}"
    left, right = _get_width(_LABEL), _get_width(words)
    title = escape(progress.sentence)
    colour = next((colour for each, colour in _COLOURS.items() if each == status), _BLUE)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f'aria-label="{escape(words, {chr(34): "&quot;"})}"><title>{title}</title>'
        f'<rect width="{left}" height="20" fill="#30363d"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{colour}"/>'
        f'<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f"{_draw_text(_LABEL, 0, left)}{_draw_text(words, left, right)}</g></svg>\n"
    )


def _get_width(words: str) -> int:
    return round(len(words) * _LETTER_WIDTH) + 2 * _PADDING


def _draw_text(words: str, x: int, width: int) -> str:
    return (
        f'<text x="{x + _PADDING}" y="14" textLength="{width - 2 * _PADDING}">'
        f"{escape(words)}</text>"
    )
