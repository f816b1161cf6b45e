"""`pgworker jobs`, `retry`, `cancel`, `pause` and `resume`.

The commands that change something are safe to repeat: a second call finds nothing left to do and
says so.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.live import Live

from pgworker.context import open_platform
from pgworker.db.pool import STATEMENT_TIMEOUT
from pgworker.models import ErrorKind, JobStatus
from pgworker.settings import load_settings
from pgworker.status.commands import EVERYTHING
from pgworker.status.durations import format_relative

from .console import (
    EX_FAILED,
    ClientArgument,
    Json,
    announce_embedded,
    plain,
    print_json,
    remark,
    run_async,
    stdout,
    usage_error,
    use_platform,
)
from .tables import (
    add_client_column,
    add_columns,
    cell,
    format_age,
    format_phase,
    is_very_wide,
    is_wide,
    long_cell,
    new_table,
    show_table,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pgworker.context import Platform
    from pgworker.status.rows import JobStatusRow, PauseRow

# A person reads no more rows than this; --json has all of them.
SHOWN = 200
REFRESH_SECONDS = 1.0

Scope = Annotated[str, typer.Argument(help="a workflow, or `all`")]


def list_jobs(
    failed: Annotated[bool, typer.Option("--failed", help="the same as --status failed")] = False,
    status: Annotated[JobStatus | None, typer.Option(help="only jobs with this status")] = None,
    client: Annotated[
        str | None, typer.Option(metavar="CLIENT", help="only jobs of this client")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="keep the list up to date")] = False,
    json: Json = False,
) -> None:
    """List jobs, newest first.

    Each comes with what it waits for, or what it failed with. --watch fills the terminal and is
    refreshed every second, until Ctrl-C.
    """
    if failed and status not in {None, JobStatus.FAILED}:
        raise usage_error("give either --failed or --status")
    if watch and json:
        raise usage_error("--watch is for a terminal, --json for programs: give one of them")
    wanted = JobStatus.FAILED if failed else status
    if watch:
        _watch(wanted, client)
        return
    # One more than is shown, to know whether there are more.
    rows = use_platform(
        lambda platform: _jobs(platform, wanted, client, None if json else SHOWN + 1)
    )
    if json:
        print_json([row._asdict() for row in rows])
        return
    console = stdout()
    if not rows:
        remark("there are no such jobs" if wanted or client else "there are no jobs")
        return
    show_table(console, _table(console, rows[:SHOWN]))
    if len(rows) > SHOWN:
        remark(f"these are the newest {SHOWN}; --json lists all of them")


async def _jobs(
    platform: Platform, status: JobStatus | None, client: str | None, limit: int | None
) -> list[JobStatusRow]:
    """Return rows of `job_status`, newest first; None filters nothing.

    Raises:
        UnknownClient: no client has that id or name, or several have the name.
    """
    client_id = None if client is None else await platform.status.find_client(client)
    return await platform.status.list_jobs(status=status, client_id=client_id, limit=limit)


def _watch(status: JobStatus | None, client: str | None) -> None:
    """Show the list full screen and refresh it until Ctrl-C (exit code 130).

    One connection serves all refreshes. The terminal's former content comes back at the end.
    """
    console = stdout()
    if not console.is_terminal:
        raise usage_error("--watch needs a terminal")
    settings = load_settings()
    announce_embedded(settings)

    async def refresh() -> None:
        async with open_platform(
            settings, pool_size=1, statement_timeout=STATEMENT_TIMEOUT
        ) as platform:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                while True:
                    # Less the header, its rule, and a line to spare.
                    rows = await _jobs(platform, status, client, console.height - 4)
                    live.update(_table(console, rows), refresh=True)
                    await asyncio.sleep(REFRESH_SECONDS)

    run_async(refresh())


def _table(console: Console, rows: list[JobStatusRow]) -> Table:
    """Return the jobs as a table; a wider console gets more columns."""
    table = new_table(console)
    wide, very_wide = is_wide(console), is_very_wide(console)
    add_columns(table, "job", right=("job",))
    add_client_column(console, table)
    add_columns(table, *(["client id"] if very_wide else []), "status", "phase")
    if wide:
        add_columns(table, "attempts", "age", right=("attempts", "age"))
    table.add_column("error or wait")
    for row in rows:
        table.add_row(
            cell(row.id),
            long_cell(row.client_name),
            *([cell(row.client_id)] if very_wide else []),
            cell(row.status),
            cell(format_phase(row) if wide else row.phase),
            *([cell(f"{row.attempts}/{row.max_attempts}")] if wide else []),
            *([cell(format_age(row.created_at))] if wide else []),
            long_cell(_last_column(row)),
        )
    return table


def _last_column(row: JobStatusRow) -> str | None:
    """Return the error of a failed job, or when a waiting job continues, and what it waits for."""
    if row.status == JobStatus.FAILED:
        return f"{row.error_kind}: {row.last_error}"
    if row.status == JobStatus.WAITING:
        reason = row.waiting_for or row.last_error or "the next try"
        return f"{format_relative(row.next_try_at)}: {reason}"
    return None


def retry(
    clients: Annotated[
        list[str] | None, typer.Argument(metavar="CLIENT...", help="ids or unique names")
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="every client whose job has failed")
    ] = False,
    kind: Annotated[
        ErrorKind | None, typer.Option(help="with --failed: only errors of this kind")
    ] = None,
) -> None:
    """Queue failed jobs again, at the phase that failed.

    A project that exists is found, never created twice. A cancelled client starts again. A client
    whose job hasn't failed is left alone and named; the exit code is 1 then. An unknown client
    stops the command before it changes anything.
    """
    if failed == bool(clients):
        raise usage_error("name clients, or give --failed")
    if kind is not None and not failed:
        raise usage_error("--kind goes with --failed")
    refused = use_platform(lambda platform: _retry(platform, clients or [], kind))
    raise typer.Exit(EX_FAILED if refused else 0)


async def _retry(platform: Platform, clients: list[str], kind: ErrorKind | None) -> dict[UUID, str]:
    """Retry the named clients, or all failed ones; return the reasons of those left alone.

    Raises:
        UnknownClient: one of the names; nothing was changed.
    """
    if clients:
        # All names first: a mistyped one must not leave half of the clients retried.
        names = {await platform.status.find_client(each): each for each in clients}
    else:
        rows = await platform.status.list_failed_clients(kind)
        names = {row.client_id: row.client_name for row in rows}
        if not names:
            with_kind = "" if kind is None else f" with an error of kind {kind}"
            remark(f"no job has failed{with_kind}")
    report = await platform.commands.retry_each(list(names))
    for client_id in report.retried:
        print(f"{plain(names[client_id])}: queued again")
    for client_id, reason in report.refused.items():
        remark(f"{names[client_id]}: left alone: {reason}")
    # With --failed, a refusal means that another person retried the job first: nothing is wrong.
    return report.refused if clients else {}


def cancel(client: ClientArgument) -> None:
    """Stop a client's unfinished or failed job.

    Whatever exists at the provider stays there. The exit code is 1 if there is no such job.
    """

    async def do(platform: Platform) -> int:
        return await platform.commands.cancel(await platform.status.find_client(client))

    if not use_platform(do):
        remark(f"{client} has no job to cancel")
        raise typer.Exit(EX_FAILED)
    print(f"{plain(client)}: cancelled")


def pause(scope: Scope = EVERYTHING) -> None:
    """Stop starting phases; running phases continue.

    The pause lasts until `pgworker resume`, also when workers restart.
    """
    is_changed = use_platform(lambda platform: platform.commands.pause(scope))
    print(f"{scope}: paused" if is_changed else f"{scope}: already paused")


def resume(scope: Scope = EVERYTHING) -> None:
    """End a pause, and name those that remain.

    Workflows may be paused one by one, and all together: a workflow runs once both are ended.
    """

    async def do(platform: Platform) -> tuple[bool, list[PauseRow]]:
        is_changed = await platform.commands.resume(scope)
        return is_changed, await platform.status.list_pauses()

    is_changed, rest = use_platform(do)
    print(f"{scope}: resumed" if is_changed else f"{scope}: was not paused")
    for row in rest:
        since = f"{format_age(row.paused_at)} ago"
        remark(f"still paused: {row.scope} (by {row.paused_by}, {since})")
