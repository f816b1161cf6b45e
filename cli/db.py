"""`pgworker db`: pgworker's own schema in the platform's database."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import typer

from pgworker.context import open_database
from pgworker.db.migrate import SchemaState, migrate, read_state
from pgworker.db.pool import connected
from pgworker.settings import load_settings

from .console import EX_FAILED, Json, print_json, remark, run_async, tell_embedded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pgworker.db.pool import Connection

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="pgworker's own tables, functions and views.")


@app.command("migrate")
def migrate_command() -> None:
    """Bring pgworker's own schema up to date. Safe to repeat, and to run in several places."""
    applied = _ask_database(migrate)
    for name in applied:
        print(f"applied {name}")
    if not applied:
        print("nothing to do: the schema is current")


@app.command()
def status(json: Json = False) -> None:
    """Tell whether pgworker's own schema is current; the exit code is 1 when it isn't."""
    state = _ask_database(read_state)
    if json:
        print_json(
            {
                "current": state.is_current,
                "applied": [row.name for row in state.applied],
                "pending": [file.name for file in state.pending],
                "newer": state.newer,
                "changed": state.changed,
            }
        )
    else:
        _print_state(state)
    raise typer.Exit(0 if state.is_current else EX_FAILED)


def _print_state(state: SchemaState) -> None:
    if state.is_current:
        print(f"current: {len(state.applied)} files applied")
        return
    for name in state.newer:
        print(f"newer    {name}")
    for name in state.changed:
        print(f"changed  {name}")
    for file in state.pending:
        print(f"pending  {file.name}")
    if state.newer or state.changed:
        remark("this program is not the one for this schema: install the release that applied it")
    else:
        remark("apply them: pgworker db migrate")


def _ask_database(question: Callable[[Connection], Awaitable[T]]) -> T:
    settings = load_settings()

    async def answer() -> T:
        async with open_database(settings) as (dsn, _), connected(dsn) as connection:
            return await question(connection)

    tell_embedded(settings)
    return run_async(answer())
