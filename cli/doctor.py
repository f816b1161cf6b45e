"""`pgworker doctor`."""

from __future__ import annotations

from contextlib import aclosing

import typer
from rich.table import Table
from rich.text import Text

from pgworker.runtime.doctor import Check, Verdict, examine

from .console import EX_FAILED, Json, plain, print_json, run_async, stdout
from .tables import cell, show_table


def doctor(json: Json = False) -> None:
    """Check every setting and dependency, and say what to do; the exit code is 1 if one fails."""

    async def do() -> list[Check]:
        checks = []
        async with aclosing(examine()) as found:
            async for check in found:
                checks.append(check)
                if not json:
                    _print_check(check)
        return checks

    checks = run_async(do())
    if json:
        print_json(checks)
    failed = any(check.verdict is Verdict.FAIL for check in checks)
    raise typer.Exit(EX_FAILED if failed else 0)


def _print_check(check: Check) -> None:
    console = stdout()
    line = Table.grid(padding=(0, 2))
    line.add_column(width=4)
    line.add_column(overflow="fold")
    detail = Text.assemble((f"{check.subject}: ", "bold"), plain(check.detail))
    line.add_row(cell(check.verdict), detail)
    if check.advice is not None:
        line.add_row("", Text(f"-> {plain(check.advice)}"))
    show_table(console, line)
