"""`pgworker reconcile`: shows the differences between providers and ledger, fixes and deletes.

It asks before it deletes, and only for refs that were named: a tenant holds a customer's data.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pgworker.errors import NotDeleted
from pgworker.maintenance.findings import choose_deletable
from pgworker.maintenance.reconcile import Reconciler

from .console import (
    EX_FAILED,
    Json,
    known_provider,
    plain,
    print_json,
    remark,
    stderr,
    stdout,
    usage_error,
    use_platform,
)
from .tables import add_columns, cell, format_count, is_very_wide, new_table, show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgworker.context import Platform
    from pgworker.maintenance.findings import Finding


def reconcile(
    fix: Annotated[
        bool, typer.Option("--fix", help="fix what can be fixed without losing anything")
    ] = False,
    delete: Annotated[
        list[str] | None,
        typer.Option(metavar="REF", help="delete this tenant, which no client owns; repeatable"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="with --delete: don't ask")] = False,
    provider: Annotated[
        str | None,
        typer.Option(
            callback=known_provider,
            metavar="NAME",
            help="inspect this one only  [default: all in use]",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Compare providers and ledger, and report the differences.

    Without an option it changes nothing; it deletes only what --delete names. The exit code is 1
    when a difference remains, or when a provider could not be inspected.
    """
    if fix and delete:
        raise usage_error("give either --fix or --delete")
    if yes and not delete:
        raise usage_error("--yes goes with --delete")
    if delete:
        _delete(list(dict.fromkeys(delete)), provider, yes=yes, json=json)
        return
    findings = use_platform(lambda platform: _inspect(platform, provider, fix=fix))
    if json:
        print_json(findings)
    else:
        _print(findings)
    raise typer.Exit(EX_FAILED if any(each.outcome is None for each in findings) else 0)


async def _inspect(platform: Platform, provider: str | None, *, fix: bool) -> list[Finding]:
    """Return the findings; with `fix` each one after its remedy was tried."""
    reconciler = Reconciler(platform)
    findings = await reconciler.inspect(provider)
    return [await reconciler.fix(each) if fix else each for each in findings]


def _print(findings: Sequence[Finding]) -> None:
    """Print what was fixed, then a table of what remains."""
    for finding in findings:
        if finding.outcome is not None:
            print(f"fixed: {plain(finding.message)}: {plain(finding.outcome)}")
    left = [each for each in findings if each.outcome is None]
    if left:
        _print_table(left)
        remark(f"{format_count(len(left), 'finding')}; nothing was deleted")
    elif not findings:
        remark("no differences: providers and ledger agree")


def _print_table(findings: Sequence[Finding]) -> None:
    """Print the findings; messages and advice wrap and are never cut: they hold refs and SQL."""
    console = stdout()
    table = new_table(console)
    add_columns(table, "finding")
    very_wide = is_very_wide(console)
    add_columns(table, *(["ref"] if very_wide else []))
    table.add_column("problem", overflow="fold")
    table.add_column("what to do", overflow="fold")
    for each in findings:
        ref = [cell(each.ref)] if very_wide else []
        table.add_row(cell(each.kind), *ref, cell(each.message), cell(each.advice))
    show_table(console, table)


def _delete(refs: list[str], provider: str | None, *, yes: bool, json: bool) -> None:
    """Ask, then delete the named tenants; leave with 1 if one of them was not deleted."""
    if not yes:
        if not sys.stdin.isatty():
            raise usage_error("there is no terminal to ask on: give --yes")
        # The question names refs only; the messages say what they are.
        for each in use_platform(lambda platform: _find_named(platform, refs, provider)):
            stderr().print(plain(each.message), markup=False, soft_wrap=True)
        typer.confirm(f"Delete for good, with all data: {', '.join(refs)}?", abort=True, err=True)
    # Inspected once more: a job may have adopted one of them while the person thought.
    deleted, errors = use_platform(lambda platform: _delete_each(platform, refs, provider))
    if json:
        print_json(deleted)
    else:
        for each in deleted:
            print(f"{each.ref}: deleted")
    for error in errors:
        stderr().print(f"pgworker: {plain(error)}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(EX_FAILED if errors else 0)


async def _delete_each(
    platform: Platform, refs: list[str], provider: str | None
) -> tuple[list[Finding], list[str]]:
    """Delete the named tenants; a deletion that the provider refuses doesn't stop the others.

    Returns:
        the findings whose tenants are deleted, and a line for each of the others.
    """
    deleted, errors = [], []
    for finding in await _find_named(platform, refs, provider):
        try:
            deleted.append(await Reconciler(platform).delete(finding))
        except NotDeleted as error:
            errors.append(str(error))
    return deleted, errors


async def _find_named(platform: Platform, refs: list[str], provider: str | None) -> list[Finding]:
    """Return the findings about these refs.

    The refs are checked before any of them is deleted: one that can't be deleted stops them all.

    Raises:
        NotDeleted: one of them has an owner, or is not among the findings of this moment.
    """
    return choose_deletable(await Reconciler(platform).inspect(provider), refs)
