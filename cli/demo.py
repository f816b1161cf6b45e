"""`pgworker demo`: its progress, its report, and what to try next."""

from __future__ import annotations

import shlex
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.table import Table

from pgworker.demo import DemoClient, DemoReport, choose_names, locate_demo, run_demo
from pgworker.models import ClientStatus
from pgworker.provisioning.workflow import PROVISION
from pgworker.settings import load_settings

from .console import EX_FAILED, find_own_command, plain, remark, run_async, stdout
from .tables import cell, format_phase, is_wide, new_table, show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

# The columns of the report.
PHASES = tuple(phase.name for phase in PROVISION.phases)


class DemoProvider(StrEnum):
    """The providers that need no account."""

    POSTGRES = "postgres"
    SUPABASE = "supabase"


def demo(
    provider: Annotated[
        DemoProvider, typer.Option(help="real databases, or a simulated Supabase")
    ] = DemoProvider.POSTGRES,
    clients: Annotated[int, typer.Option(min=1, max=100, help="how many")] = 5,
) -> None:
    """Provision a few clients on an embedded PostgreSQL.

    It uses a data directory of its own, and no network beyond this machine. The exit code is 1
    unless every client becomes ready.
    """
    settings = load_settings()
    names = choose_names(clients)
    directory = locate_demo(settings)
    remark(f"embedded PostgreSQL in {directory}, log in {directory / 'demo.log'}")
    print(f"insert into clients (name, auto_provision) values ('{names[0]}', true), …;")
    console = stdout()
    # Redrawn on a terminal; elsewhere a line for each change.
    if console.is_terminal:
        with Live(console=console, transient=True, auto_refresh=False) as live:
            report = run_async(
                run_demo(
                    settings,
                    provider=provider.value,
                    names=names,
                    show=lambda seen: live.update(_progress(console, seen), refresh=True),
                )
            )
    else:
        report = run_async(
            run_demo(settings, provider=provider.value, names=names, show=_Lines().show)
        )
    _print_report(console, report, keeps_tenants=provider is DemoProvider.POSTGRES)
    raise typer.Exit(0 if report.complete else EX_FAILED)


class _Lines:
    """Progress for a file or a pipe, where nothing can be redrawn: a line for each change."""

    def __init__(self) -> None:
        self._printed: dict[str, str | None] = {}

    def show(self, clients: Sequence[DemoClient]) -> None:
        """Print the clients whose status has changed since the last call."""
        for client in clients:
            name, status = client.row.client_name, client.row.status
            if self._printed.get(name) != status:
                self._printed[name] = status
                print(f"{plain(name)}: {status}", flush=True)


def _progress(console: Console, clients: Sequence[DemoClient]) -> Table:
    """Return the clients as a table, to be drawn over the last one."""
    table = new_table(console)
    # As wide as the longest status and phase, so that the columns keep their places.
    table.add_column("client", no_wrap=True)
    table.add_column("status", no_wrap=True, min_width=19)
    table.add_column("phase", no_wrap=True, min_width=18)
    table.add_column("seconds", justify="right")
    for client in clients:
        table.add_row(
            cell(client.row.client_name),
            cell(client.row.status),
            cell("done" if client.is_ready else format_phase(client.row)),
            f"{sum(client.seconds.values()):.1f}",
        )
    return table


def _print_report(console: Console, report: DemoReport, *, keeps_tenants: bool) -> None:
    """Print a table of seconds by client and phase, the errors, and what to try next."""
    table = new_table(console)
    table.add_column("client", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("schema", no_wrap=True)
    for phase in PHASES:
        # On two lines, so that all phases fit into 80 columns.
        title = phase.replace("_", "\n") if console.is_terminal else phase
        table.add_column(title, justify="right", no_wrap=True)
    wide = is_wide(console)
    if wide:
        table.add_column("total", justify="right", no_wrap=True)
    for client in report.clients:
        table.add_row(
            cell(client.row.client_name),
            cell(client.row.status),
            cell(client.row.schema_version),
            *(cell(_seconds(client.seconds.get(phase))) for phase in PHASES),
            *([cell(_seconds(sum(client.seconds.values())))] if wide else []),
        )
    print("seconds in each phase:\n")
    show_table(console, table)
    ready = sum(client.is_ready for client in report.clients)
    print(f"\n{ready} of {len(report.clients)} clients ready after {report.seconds:.1f} s")
    for client in report.clients:
        if client.row.status == ClientStatus.FAILED:
            print(f"{plain(client.row.client_name)}: {plain(client.row.last_error)}")
    _print_next_steps(report, keeps_tenants=keeps_tenants)


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _print_next_steps(report: DemoReport, *, keeps_tenants: bool) -> None:
    """Print commands that can be pasted into a shell as they are.

    The simulator's tenants end with it, so that their secrets would open nothing.
    """
    pgworker = find_own_command()
    name = shlex.quote(report.clients[0].row.client_name)
    print(
        f"\nExplore it, until the next demo starts over:\n"
        f"  export PGWORKER_DATA_DIR={shlex.quote(str(report.data_dir))}\n"
        f"  {pgworker} clients list\n"
        f"  {pgworker} why {name}"
    )
    if keeps_tenants:
        print(f"  {pgworker} secrets show {name}")
