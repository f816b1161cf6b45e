"""`pgworker secrets`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pgworker.errors import PgworkerError

from .console import ClientArgument, Json, ask, plain, print_json, usage_error

if TYPE_CHECKING:
    from pgworker.context import Platform

app = typer.Typer(no_args_is_help=True, help="Keys and passwords of tenants.")

ORDER = (
    *("project_ref", "project_url", "dsn", "db_password"),
    *("publishable_key", "secret_key", "anon_key", "service_role_key"),
)


# Without it typer would take a group of one command for that command.
@app.callback()
def secrets() -> None:
    """Keys and passwords of tenants."""


@app.command()
def show(
    client: ClientArgument,
    yes: Annotated[bool, typer.Option("--yes", help="don't ask")] = False,
    json: Json = False,
) -> None:
    """Print a tenant's keys and passwords, in clear. The audit trail records that you did."""
    if not yes:
        if not sys.stdin.isatty():
            raise usage_error("there is nobody to ask: give --yes")
        question = f"Print the keys and passwords of {plain(client)} here, in clear?"
        typer.confirm(question, abort=True, err=True)
    values = ask(lambda platform: _reveal(platform, client))
    if json:
        print_json(values)
        return
    width = max(map(len, values))
    for name, value in values.items():
        # Not by Rich: a key must be copied as it is, whatever the terminal's width.
        print(f"{name:<{width}}  {value}")


async def _reveal(platform: Platform, client: str) -> dict[str, str]:
    client_id = await platform.status.find_client(client)
    shown = await platform.status.get_client(client_id)
    values = await platform.secrets().reveal(client_id)
    if not values:
        raise PgworkerError(f"{client} has no secrets yet: pgworker why {client_id} tells why")
    every = {"project_ref": shown.project_ref, "project_url": shown.project_url, **values}
    order = [*ORDER, *sorted(every.keys() - set(ORDER))]
    return {name: value for name in order if (value := every.get(name)) is not None}
