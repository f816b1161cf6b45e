"""`pgworker doctor`: prints each check as it is done."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from pgworker.errors import BadConfiguration
from pgworker.runtime.checks import Check, Verdict, check_settings_error
from pgworker.runtime.doctor import examine
from pgworker.settings import load_settings

from .console import EX_FAILED, Json, plain, print_json, run_async, stdout
from .tables import cell, show_table

if TYPE_CHECKING:
    from pgworker.settings import Settings


def doctor(json: Json = False) -> None:
    """Check every setting and dependency, and say what to do.

    The exit code is 1 if a check fails; a warning leaves it at 0.
    """
    try:
        settings = load_settings()
    except BadConfiguration as error:
        # Elsewhere this is exit code 78; here it is what the doctor was asked to find.
        checks = check_settings_error(error)
        if not json:
            for check in checks:
                _print_check(check)
    else:
        checks = run_async(_examine(settings, is_shown=not json))
    if json:
        print_json(checks)
    failed = any(check.verdict is Verdict.FAIL for check in checks)
    raise typer.Exit(EX_FAILED if failed else 0)


async def _examine(settings: Settings, *, is_shown: bool) -> list[Check]:
    """Return all checks; print each as soon as it is done, because some of them take seconds."""
    checks = []
    # Closed also when printing fails: the reader of a pipe may have stopped (`doctor | head`).
    async with aclosing(examine(settings)) as examination:
        async for check in examination:
            checks.append(check)
            if is_shown:
                _print_check(check)
    return checks


def _print_check(check: Check) -> None:
    """Print verdict, subject and detail, and below them the advice; long texts wrap."""
    console = stdout()
    line = Table.grid(padding=(0, 2))
    line.add_column(width=4)
    line.add_column(overflow="fold")
    detail = Text.assemble((f"{check.subject}: ", "bold"), plain(check.detail))
    line.add_row(cell(check.verdict), detail)
    if check.advice is not None:
        line.add_row("", Text(f"-> {plain(check.advice)}"))
    show_table(console, line)
