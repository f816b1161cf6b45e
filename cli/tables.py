"""Tables and cells: cut to 80 columns on a terminal, complete in a file or a pipe."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from pgworker.status.durations import format_duration

from .console import plain, stdout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from pgworker.status.rows import ClientStatusRow, JobStatusRow

# Columns of a terminal: from these widths on there is room for further columns, and for ids.
WIDE = 100
VERY_WIDE = 160

# By the values of statuses, verdicts and severities; others have the terminal's own colour.
STYLES: Mapping[str, str] = {
    "ready": "green",
    "succeeded": "green",
    "ok": "green",
    "current": "green",
    "running": "cyan",
    "failed": "bold red",
    "fail": "bold red",
    "error": "bold red",
    "cancelled": "yellow",
    "warn": "yellow",
    "warning": "yellow",
    "behind": "yellow",
    "unknown": "yellow",
    "not_provisioned": "dim",
    "none": "dim",
}


def is_wide(console: Console) -> bool:
    """Whether there is room for more than the essential columns. A file or a pipe is wide."""
    return console.width >= WIDE


def is_very_wide(console: Console) -> bool:
    """Whether there is room for ids."""
    return console.width >= VERY_WIDE


def show_table(console: Console, table: Table) -> None:
    """Print a table. In a file or a pipe its lines have no trailing blanks."""
    if console.is_terminal:
        console.print(table)
        return
    # Rich pads the last column, which `diff` and editors would show.
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def new_table(console: Console) -> Table:
    """Return an empty table: its header has a rule on a terminal, and none elsewhere."""
    if console.is_terminal:
        return Table(
            box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold"
        )
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")


def add_client_column(console: Console, table: Table) -> None:
    """Add a column for the names of clients, which may be of any length: a terminal cuts them."""
    width = 40 if is_wide(console) else 24
    table.add_column("client", max_width=width if console.is_terminal else None)


def add_columns(table: Table, *titles: str, right: tuple[str, ...] = ()) -> None:
    """Add columns for short values, which are never cut; `right` names those aligned right."""
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left", no_wrap=True)


def long_cell(value: object) -> Text:
    """Return a cell that is cut when the terminal is narrow.

    Its column must not be `no_wrap`: Rich takes width from such columns last.
    """
    text = cell("" if value is None else value)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def cell(value: object) -> Text:
    """Return a cell with the value's text; statuses and verdicts have colours, None is a dash."""
    if value is None:
        return Text("-", style="dim")
    # As a `Text`, so that brackets in a name are not taken for Rich's markup.
    text = plain(value)
    return Text(text, style=STYLES.get(text, ""))


def format_age(since: datetime | None) -> str:
    """Return how long ago that was."""
    return format_duration(None if since is None else datetime.now(UTC) - since)


def format_phase(row: ClientStatusRow | JobStatusRow) -> str | None:
    """Return the phase of a row of `client_status` or `job_status`, as in `schema_sync 3/4`."""
    if row.phase is None:
        return None
    if row.phase_number is None:
        return row.phase
    return f"{row.phase} {row.phase_number}/{row.phase_count}"


def print_facts(pairs: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one pair a line; values wrap on a terminal and are never cut."""
    console = stdout()
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, cell(value))
    show_table(console, table)


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
