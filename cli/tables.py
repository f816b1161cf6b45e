"""Tables: they fit 80 columns on a terminal, and hold everything in a file or a pipe."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from pgworker.status.durations import duration

from .console import plain, stdout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from pgworker.status.rows import ClientStatusRow, JobStatusRow

# From these widths on there is room for more than the essential columns, and for ids.
WIDE = 100
VERY_WIDE = 160

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
    """Whether there is room for more than the essential columns."""
    return console.width >= WIDE


def is_very_wide(console: Console) -> bool:
    """Whether there is room for ids."""
    return console.width >= VERY_WIDE


def show_table(console: Console, table: Table) -> None:
    """Print a table; without the blanks that fill its last column, where they are in the way."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def new_table(console: Console) -> Table:
    """Return an empty table: ruled on a terminal, bare columns elsewhere."""
    if console.is_terminal:
        return Table(
            box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold"
        )
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")


def add_client_column(console: Console, table: Table) -> None:
    """Add the column of clients' names, which may be of any length."""
    widths = 40 if is_wide(console) else 24
    table.add_column("client", max_width=widths if console.is_terminal else None)


def add_columns(table: Table, *titles: str, right: tuple[str, ...] = ()) -> None:
    """Add columns whose values are short: they are never cut."""
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left", no_wrap=True)


def long_cell(value: object) -> Text:
    """Return a value for a column that gives way when a terminal is narrow: it is cut there.

    Its column must not be `no_wrap`: Rich takes no width from such ones first.
    """
    text = cell("" if value is None else value)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def cell(value: object) -> Text:
    """Return a value as text, coloured when it is one of our words."""
    if value is None:
        return Text("-", style="dim")
    text = plain(value)
    return Text(text, style=STYLES.get(text, ""))


def age(since: datetime | None) -> str:
    """Return how long ago something was."""
    return duration(None if since is None else datetime.now(UTC) - since)


def phase_of(row: ClientStatusRow | JobStatusRow) -> str | None:
    """Return the phase of a row of `client_status` or `job_status`, with its place in the row."""
    if row.phase is None:
        return None
    if row.phase_number is None:
        return row.phase
    return f"{row.phase} {row.phase_number}/{row.phase_count}"


def facts(pairs: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one a line; values wrap on a terminal and are never cut."""
    console = stdout()
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, cell(value))
    show_table(console, table)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
