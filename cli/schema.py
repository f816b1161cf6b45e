"""`pgworker schema`: the canonical migrations, and which of them tenants have.

A directory without migrations is a bad setting (exit code 78), and a file that can't be used as it
is fails the command (exit code 1), before any tenant is touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pgworker.maintenance.fleet import ClientSync, schema_status, sync_each
from pgworker.schema.directory import read_configured_set
from pgworker.schema.lint import Violation, lint
from pgworker.schema.lint_rules import Severity
from pgworker.settings import load_settings

from .console import (
    EX_FAILED,
    Json,
    plain,
    print_json,
    remark,
    stderr,
    stdout,
    usage_error,
    use_platform,
)
from .tables import add_columns, cell, format_count, is_very_wide, long_cell, new_table, show_table

if TYPE_CHECKING:
    from pgworker.context import Platform
    from pgworker.schema.migrations import CanonicalSet

app = typer.Typer(no_args_is_help=True, help="The canonical schema of tenants.")


@app.command("lint")
def lint_command(json: Json = False) -> None:
    """Check the canonical migrations for harmful statements.

    These lose data, lock a tenant in use, or open it to others. Needs no database. The exit code is
    1 when there is an error; warnings leave it at 0.
    """
    canonical = read_configured_set(load_settings().migrations_dir)
    violations = lint(canonical)
    if json:
        print_json(violations)
    else:
        _print_violations(canonical, violations)
    is_bad = any(violation.severity is Severity.ERROR for violation in violations)
    raise typer.Exit(EX_FAILED if is_bad else 0)


def _print_violations(canonical: CanonicalSet, violations: tuple[Violation, ...]) -> None:
    """Print the violations with file and line, as compilers do; notices and counts go to stderr."""
    console = stdout()
    for notice in canonical.notices:
        remark(notice)
    for violation in violations:
        line = cell(violation.severity)
        line.append(f" {violation.file}:{violation.line} [{violation.rule}]\n", style="default")
        line.append(f"    {plain(violation.message)}", style="default not bold")
        console.print(line)
    errors = sum(violation.severity is Severity.ERROR for violation in violations)
    remark(
        f"{format_count(len(canonical.migrations), 'migration')} in {canonical.directory}: "
        f"{format_count(errors, 'error')}, {format_count(len(violations) - errors, 'warning')}"
    )


@app.command()
def status(json: Json = False) -> None:
    """Compare the schema versions of clients with the canonical one.

    These are the recorded versions: no tenant is contacted.
    """
    canonical = read_configured_set(load_settings().migrations_dir)
    rows = schema_status(use_platform(lambda platform: platform.status.list_clients()), canonical)
    if json:
        print_json(rows)
        return
    console = stdout()
    very_wide = is_very_wide(console)
    table = new_table(console)
    table.add_column("client")
    add_columns(table, *(["id"] if very_wide else []), "status", "schema", "has", "missing")
    for row in rows:
        table.add_row(
            long_cell(row.client_name),
            *([cell(row.client_id)] if very_wide else []),
            cell(row.status),
            cell(row.position),
            cell(row.schema_version),
            cell(row.missing),
        )
    if rows:
        show_table(console, table)
    remark(f"newest canonical migration: {canonical.head}")


@app.command()
def sync(
    client: Annotated[
        str | None, typer.Argument(metavar="[CLIENT]", help="id or unique name")
    ] = None,
    all_clients: Annotated[
        bool, typer.Option("--all", help="every client that has a tenant")
    ] = False,
    include_all: Annotated[
        bool,
        typer.Option("--include-all", help="also apply files older than the newest applied one"),
    ] = False,
) -> None:
    """Apply the canonical migrations that tenants lack.

    A tenant that fails is named and doesn't stop the others; the exit code is 1 then.
    """
    if all_clients == (client is not None):
        raise usage_error("name a client, or give --all")
    canonical = read_configured_set(load_settings().migrations_dir)
    failed = use_platform(
        lambda platform: _sync(platform, client, canonical, include_all=include_all)
    )
    raise typer.Exit(EX_FAILED if failed else 0)


async def _sync(
    platform: Platform, client: str | None, canonical: CanonicalSet, *, include_all: bool
) -> int:
    """Sync one client, or with None all that have a tenant; return how many failed."""
    status = platform.status
    if client is not None:
        names = {await status.find_client(client): client}
    else:
        known = {row.client_id: row.client_name for row in await status.list_clients()}
        names = {
            each: known.get(each, str(each)) for each in await status.list_clients_with_tenant()
        }
        if not names:
            remark("no client has a tenant yet")
    failed = 0

    def report(result: ClientSync) -> None:
        nonlocal failed
        failed += result.error is not None
        _print_result(names[result.client_id], result)

    await sync_each(platform, list(names), canonical, report, include_all=include_all)
    return failed


def _print_result(name: str, result: ClientSync) -> None:
    """Print a line for one client; flushed, because the next one may take minutes."""
    if result.report is None:
        stderr().print(
            f"{plain(name)}: {plain(result.error)}", style="red", markup=False, soft_wrap=True
        )
        return
    for notice in result.report.notices:
        remark(f"{plain(name)}: {notice.file}: {notice.severity}: {plain(notice.message)}")
    if result.report.applied:
        print(f"{plain(name)}: applied {', '.join(result.report.applied)}", flush=True)
    else:
        print(f"{plain(name)}: current ({result.report.head})", flush=True)
