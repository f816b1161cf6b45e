"""`pgworker keys`: the keys that encrypt tenants' secrets, and tokens of the HTTP API."""

from __future__ import annotations

import secrets
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pgworker.context import generate_key
from pgworker.models import Scope
from pgworker.settings import NAME_PATTERN, token_digest

from .console import ask, remark, usage_error

if TYPE_CHECKING:
    from pgworker.context import Platform

app = typer.Typer(no_args_is_help=True, help="The keys that encrypt tenants' secrets, and tokens.")


@app.command()
def generate(
    key_id: Annotated[
        str | None, typer.Option("--id", help="what it is called  [default: made of the date]")
    ] = None,
) -> None:
    """Print a new key for PGWORKER_ENCRYPTION_KEYS. Nothing is stored."""
    if key_id is None:
        key_id = f"{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(2)}"
    if not NAME_PATTERN.fullmatch(key_id):
        raise usage_error("an id has 1 to 64 letters, digits and . _ -")
    print(generate_key(key_id))
    if sys.stdout.isatty():
        remark(
            "put it first in PGWORKER_ENCRYPTION_KEYS, the old ones behind it, on every worker; "
            "then: pgworker keys rotate"
        )


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="who bears it; logs and the audit trail name them")],
    scope: Annotated[Scope, typer.Option(help="what they may do")] = Scope.READ,
) -> None:
    """Print a new token for the HTTP API, and its line for PGWORKER_API_TOKENS. Stores nothing.

    The first line is for whoever bears it. The second one is for the setting: it holds only the
    token's hash.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise usage_error("a name has 1 to 64 letters, digits and . _ -")
    made = f"pgw_{secrets.token_urlsafe(32)}"
    print(made)
    print(f"{name}:{scope}:sha256={token_digest(made).hex()}")
    if sys.stdout.isatty():
        remark("add the second line to PGWORKER_API_TOKENS, behind a comma, on every worker")


@app.command()
def rotate() -> None:
    """Encrypt all secrets with the first key. Afterwards the others can be taken away."""

    async def do(platform: Platform) -> tuple[int, dict[str, int]]:
        tenant_secrets = platform.secrets()
        return await tenant_secrets.rotate(), await tenant_secrets.by_key()

    count, by_key = ask(do)
    print(f"{count} secrets encrypted again" if count else "nothing to do")
    for key_id, secrets_under_it in by_key.items():
        remark(f"{secrets_under_it} secrets are under the key {key_id}")
