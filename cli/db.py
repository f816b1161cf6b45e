"""`pgworker db`: pgworker's own schema in the platform's database.

These commands work without that schema, which all others need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from pgworker.context import open_database
from pgworker.db.migrate import SchemaState, migrate, read_plan, read_state
from pgworker.db.pool import connected
from pgworker.settings import load_settings

from .console import EX_FAILED, Json, announce_embedded, print_json, remark, run_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pgworker.db.adoption.plan import Plan
    from pgworker.db.pool import Connection

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="pgworker's own tables, functions and views.")


@app.command("migrate")
def migrate_command(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show the plan, or what forbids it; change nothing")
    ] = False,
    json: Json = False,
) -> None:
    """Update pgworker's own schema. Safe to repeat, and to run in several places at once.

    It waits for no lock longer than half a minute in all, and names the session that holds it.
    With --dry-run the exit code is 1 when something must be changed first.
    """
    if dry_run:
        plan = _use_database(lambda connection, _: read_plan(connection))
        _print_plan(plan, as_json=json)
        raise typer.Exit(EX_FAILED if plan.objections else 0)
    applied = _use_database(lambda connection, dsn: migrate(connection, dsn=dsn))
    if json:
        print_json({"applied": applied})
        return
    for name in applied:
        print(f"applied {name}")
    if not applied:
        print("nothing to do: the schema is current")


@app.command()
def status(json: Json = False) -> None:
    """Show whether pgworker's own schema is current.

    The exit code is 1 when it isn't.
    """
    state = _use_database(lambda connection, _: read_state(connection))
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
    """Print what differs: files that only the database has, changed files, files to be applied."""
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
        remark("this release doesn't fit the schema: install the release that applied it")
    else:
        remark("apply them: pgworker db migrate")


def _print_plan(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "files": plan.files,
                "changes": [
                    {**change._asdict(), "blocks": change.blocks} for change in plan.changes
                ],
                "objections": [objection._asdict() for objection in plan.objections],
                "notices": plan.notices,
            }
        )
        return
    for objection in plan.objections:
        print(f"change first  {objection}")
    for name in plan.files:
        print(f"file          {name}")
    for change in plan.changes:
        note = f"; {change.note}" if change.note else ""
        print(f"on clients    {change.change} (lock: {change.lock}, blocks {change.blocks}{note})")
    for notice in plan.notices:
        print(f"note          {notice}")
    if plan.objections:
        remark("nothing was changed: change what is named first, then run it again")
    elif plan.files or plan.changes:
        remark("nothing was changed: apply it with pgworker db migrate")
    else:
        print("nothing to do: the schema is current")


def _use_database(action: Callable[[Connection, str], Awaitable[T]]) -> T:
    """Connect to the platform's database and do one thing with it, given its URL, too.

    Unlike `use_platform` it accepts a database without pgworker's schema, or with another one.
    """
    settings = load_settings()

    async def run() -> T:
        async with open_database(settings) as (dsn, _), connected(dsn) as connection:
            return await action(connection, dsn)

    announce_embedded(settings)
    return run_async(run())
