"""`pgworker secrets`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pgworker.errors import PgworkerError

from .console import ClientArgument, Json, plain, print_json, usage_error, use_platform

if TYPE_CHECKING:
    from pgworker.context import Platform

app = typer.Typer(no_args_is_help=True, help="Keys and passwords of tenants.")

ORDER = (
    *("project_ref", "project_url", "dsn", "db_password"),
    *("publishable_key", "secret_key", "anon_key", "service_role_key"),
)


# Without a callback typer would turn a group of one command into that command.
@app.callback()
def secrets() -> None:
    """Keys and passwords of tenants."""


@app.command()
def show(
    client: ClientArgument,
    yes: Annotated[bool, typer.Option("--yes", help="don't ask")] = False,
    json: Json = False,
) -> None:
    """Print a tenant's keys and passwords in plain text. The audit trail records it.

    It asks first, unless --yes is given.
    """
    if not yes:
        if not sys.stdin.isatty():
            raise usage_error("there is no terminal to ask on: give --yes")
        question = f"Print the keys and passwords of {plain(client)} here, in plain text?"
        typer.confirm(question, abort=True, err=True)
    values = use_platform(lambda platform: _reveal(platform, client))
    if json:
        print_json(values)
        return
    width = max(map(len, values))
    for name, value in values.items():
        # Not by Rich, which wraps at the terminal's width: a key must be copied in one piece.
        print(f"{name:<{width}}  {value}")


async def _reveal(platform: Platform, client: str) -> dict[str, str]:
    """Return the stored secrets and the tenant's address, in a stable order.

    Raises:
        PgworkerError: nothing is stored yet.
    """
    client_id = await platform.status.find_client(client)
    shown = await platform.status.get_client(client_id)
    values = await platform.secrets().reveal(client_id)
    if not values:
        raise PgworkerError(f"{client} has no secrets yet: pgworker why {client_id} shows why")
    every = {"project_ref": shown.project_ref, "project_url": shown.project_url, **values}
    order = [*ORDER, *sorted(every.keys() - set(ORDER))]
    return {name: value for name in order if (value := every.get(name)) is not None}
