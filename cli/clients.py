"""`pgworker clients` and `pgworker why`.

A client is named by its id or by its name; an unknown or ambiguous name is exit code 1, with the
similar names or the ids to choose from.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from pgworker.models import FINAL_STATUSES, LIVE_STATUSES, ClientStatus
from pgworker.status.commands import ClientRequest
from pgworker.status.durations import format_duration, format_relative
from pgworker.status.explain import Explanation, explain

from .console import (
    EX_FAILED,
    ClientArgument,
    Json,
    known_provider,
    plain,
    print_json,
    remark,
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
    print_facts,
    show_table,
)

if TYPE_CHECKING:
    from pgworker.context import Platform
    from pgworker.status.rows import ClientStatusRow

app = typer.Typer(no_args_is_help=True, help="Add, list and show clients.")

# For `add --wait`: short enough to show each phase of a provider that takes a second for all.
POLL_SECONDS = 0.25
# A person reads no more rows than this, nor more events of one client; --json has all clients.
SHOWN = 200
HISTORY_SHOWN = 50


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="display name")],
    region: Annotated[str | None, typer.Option(help="region for its project")] = None,
    plan: Annotated[str | None, typer.Option(help="instance size for its project")] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            callback=known_provider,
            metavar="NAME",
            help="provider that creates its project  [default: PGWORKER_PROVIDER]",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="wait until it is ready or has failed")
    ] = False,
) -> None:
    """Add a client, queue its provisioning, and print its id.

    The id is all that stdout gets, so that a script can read it. With --wait each change of status
    goes to stderr, and the exit code is 1 unless the client becomes ready.
    """
    # PostgreSQL has no text with a null byte.
    if not name.strip() or "\0" in name:
        raise usage_error("the name is empty")
    asked = {"region": region, "plan": plan, "provider": provider}
    wishes = {key: value for key, value in asked.items() if value}

    async def do(platform: Platform) -> ClientStatusRow | None:
        request = ClientRequest(name, additional_settings=wishes)
        created = await platform.commands.create_client(request)
        # Before the wait, so that a script that is interrupted knows the client all the same.
        print(created.client_id, flush=True)
        return await _wait(platform, created.client_id) if wait else None

    row = use_platform(do)
    if row is not None and row.status != ClientStatus.READY:
        remark(f"{row.status}: {row.last_error or 'pgworker why shows more'}")
        raise typer.Exit(EX_FAILED)


async def _wait(platform: Platform, client_id: UUID) -> ClientStatusRow:
    """Print each change of status on stderr; return the client's row once its status is final."""
    # Polled: a few small queries cost less than a connection that listens, for a wait of a minute.
    printed = None
    while True:
        row = await platform.status.get_client_status(client_id)
        is_final = row.status in FINAL_STATUSES
        line = str(row.status)
        if row.blocked_because and not is_final:
            line += f" ({row.blocked_because})"
        if line != printed:
            remark(line)
            printed = line
        if is_final:
            return row
        await asyncio.sleep(POLL_SECONDS)


@app.command("list")
def list_clients(json: Json = False) -> None:
    """List clients, newest first.

    A terminal shows the newest 200, cut to its width; --json has all of them.
    """
    # One more than is shown, to know whether there are more.
    rows = use_platform(
        lambda platform: platform.status.list_clients(limit=None if json else SHOWN + 1)
    )
    if json:
        print_json([_as_json(row) for row in rows])
        return
    if not rows:
        remark("there are no clients: pgworker clients add NAME")
        return
    console = stdout()
    wide, very_wide = is_wide(console), is_very_wide(console)
    table = new_table(console)
    add_client_column(console, table)
    add_columns(table, *(["id"] if very_wide else []), "status")
    add_columns(table, *(["phase", "schema"] if wide else []), "age", right=("age",))
    table.add_column("error or wait")
    for row in rows[:SHOWN]:
        # A ready client's last phase is not news.
        is_ready = row.status == ClientStatus.READY
        table.add_row(
            long_cell(row.client_name),
            *([cell(row.client_id)] if very_wide else []),
            cell(row.status),
            *([cell(None if is_ready else format_phase(row))] if wide else []),
            *([cell(row.schema_version)] if wide else []),
            cell(format_age(row.created_at)),
            long_cell(row.last_error or row.blocked_because),
        )
    show_table(console, table)
    if len(rows) > SHOWN:
        remark(f"these are the newest {SHOWN}; --json lists all of them")


@app.command()
def show(client: ClientArgument, json: Json = False) -> None:
    """Show everything about a client.

    That is its state, its project, the seconds in each phase, and the latest 50 events.
    """
    found = use_platform(lambda platform: _explain(platform, client, HISTORY_SHOWN))
    if json:
        print_json(
            _as_json(found.client)
            | {"phase_seconds": found.phases, "last_answer": found.last_answer}
            | {"events": [event._asdict() for event in found.events]}
        )
        return
    row = found.client
    print_facts(
        [
            *_state(found),
            ("project", row.project_ref),
            ("address", row.project_url),
            ("added", _added(row.created_at)),
            *((f"in {phase}", f"{seconds:.1f} s") for phase, seconds in found.phases.items()),
        ]
    )
    _print_events(found)


def why(client: ClientArgument, json: Json = False) -> None:
    """Explain what a client is waiting for, and what to do.

    It shows the state, the phase, the worker that holds the job, the next try, the provider's last
    answer, the latest events, and the commands that help.
    """
    found = use_platform(lambda platform: _explain(platform, client))
    if json:
        print_json(
            _as_json(found.client)
            | {"phase_seconds": found.phases, "last_answer": found.last_answer}
            | {"breakers": [breaker._asdict() for breaker in found.breakers]}
            | {"events": [event._asdict() for event in found.events], "advice": found.advice}
        )
        return
    print_facts(
        [
            *_state(found),
            *(("refused", f"{breaker.credential}: {breaker.reason}") for breaker in found.breakers),
        ]
    )
    _print_events(found)
    print("\nto do:")
    for line in found.advice:
        # Not by Rich, which wraps at the terminal's width: a command must be copied in one piece.
        print(f"  {plain(line)}")


async def _explain(platform: Platform, client: str, events: int | None = None) -> Explanation:
    """Gather what is known of the client; `events` None takes as many as fit one screen.

    Raises:
        UnknownClient: no client has that id or name, or several have the name.
    """
    client_id = await platform.status.find_client(client)
    if events is None:
        return await explain(platform.status, client_id)
    return await explain(platform.status, client_id, events=events)


def _state(found: Explanation) -> list[tuple[str, object]]:
    """Return the lines that `show` and `why` begin with; those without a value are left out."""
    row = found.client
    job_status = row.job_status
    lines: list[tuple[str, object]] = [
        ("client", row.client_name),
        ("id", row.client_id),
        ("status", row.status),
    ]
    optional = [
        ("phase", format_phase(row)),
        (
            "job",
            f"{row.job_id}, {job_status} for {format_age(row.since)}" if job_status else None,
        ),
        ("held by", row.claimed_by),
        ("blocked", row.blocked_because),
        ("next try", _next_try(row)),
        ("attempts", f"{row.attempts} of {row.max_attempts}" if row.attempts else None),
        ("error", _error(row)),
        ("last answer", found.last_answer),
        ("schema", row.schema_version),
        ("in phase", _in_phase(found)),
    ]
    return lines + [(name, value) for name, value in optional if value is not None]


def _as_json(row: ClientStatusRow) -> dict[str, object]:
    """Return the keys that `--json` promises: what the row has for our own use isn't among them."""
    keys: dict[str, object] = row._asdict()
    for name in ("blocked_code", "may_cost_money"):
        del keys[name]
    return keys


def _added(at: datetime | None) -> str | None:
    """Return when a client was added; None where an adopted table doesn't record it."""
    return None if at is None else f"{at:%Y-%m-%d %H:%M:%S %Z} ({format_age(at)} ago)"


def _next_try(row: ClientStatusRow) -> str | None:
    """Return when a wait ends; None for a job that is due, which waits for something else."""
    at = row.next_try_at
    return None if at is None or at <= datetime.now(UTC) else format_relative(at)


def _error(row: ClientStatusRow) -> str | None:
    """Return the newest error, with its kind; None for a ready client, whose errors are past."""
    if row.last_error is None or row.status == ClientStatus.READY:
        return None
    kind = f"{row.error_kind}: " if row.error_kind else ""
    return f"{kind}{row.last_error}"


def _in_phase(found: Explanation) -> str | None:
    """Return how long the job has been in its phase; None unless it is live."""
    row = found.client
    if row.job_status not in LIVE_STATUSES:
        return None
    seconds = found.phases.get(row.phase or "")
    return None if seconds is None else format_duration(seconds)


def _print_events(found: Explanation) -> None:
    """Print the audit trail, oldest first: ages on a terminal, times of day elsewhere."""
    if not found.events:
        return
    console = stdout()
    wide = is_wide(console)
    table = new_table(console)
    add_columns(table, "when", "event", "phase", right=("when",))
    if wide:
        table.add_column("by")
    table.add_column("error")
    for event in found.events:
        error = event.error
        at = f"{format_age(event.at)} ago" if console.is_terminal else event.at.isoformat()
        # An event that ends a workflow leads to no further phase.
        table.add_row(
            cell(at),
            cell(event.event),
            cell(event.to_phase or event.from_phase),
            *([long_cell(event.actor)] if wide else []),
            long_cell(f"{event.error_kind}: {error}" if error else None),
        )
    print()
    show_table(console, table)
