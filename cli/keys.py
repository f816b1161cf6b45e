"""`pgworker keys`: the keys that encrypt tenants' secrets, and the tokens of the HTTP API."""

from __future__ import annotations

import secrets
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pgworker.context import generate_key
from pgworker.models import Scope
from pgworker.settings import NAME_PATTERN, token_digest

from .console import remark, usage_error, use_platform
from .tables import format_count

if TYPE_CHECKING:
    from pgworker.context import Platform

app = typer.Typer(no_args_is_help=True, help="Encryption keys and API tokens.")


@app.command()
def generate(
    key_id: Annotated[
        str | None, typer.Option("--id", help="the key's id  [default: made from the date]")
    ] = None,
) -> None:
    """Print a new key for PGWORKER_ENCRYPTION_KEYS. Nothing is stored."""
    if key_id is None:
        key_id = f"{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(2)}"
    if not NAME_PATTERN.fullmatch(key_id):
        raise usage_error("an id has 1 to 64 letters, digits and . _ -")
    print(generate_key(key_id))
    # In a pipe, the key goes straight to where it is used.
    if sys.stdout.isatty():
        remark(
            "put it first in PGWORKER_ENCRYPTION_KEYS on every worker, and keep the old keys "
            "after it; then: pgworker keys rotate"
        )


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="its holder, as logs and the audit trail show it")],
    scope: Annotated[Scope, typer.Option(help="what it permits")] = Scope.READ,
) -> None:
    """Print a new token for the HTTP API. Nothing is stored.

    The first line is the token, for its holder. The second line is its entry for
    PGWORKER_API_TOKENS, and contains only the token's hash.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise usage_error("a name has 1 to 64 letters, digits and . _ -")
    made = f"pgw_{secrets.token_urlsafe(32)}"
    print(made)
    print(f"{name}:{scope}:sha256={token_digest(made).hex()}")
    if sys.stdout.isatty():
        remark("append the second line to PGWORKER_API_TOKENS, after a comma, on every worker")


@app.command()
def rotate() -> None:
    """Encrypt all secrets with the first key.

    Afterwards the other keys can be removed from PGWORKER_ENCRYPTION_KEYS.
    """

    async def do(platform: Platform) -> tuple[int, dict[str, int]]:
        tenant_secrets = platform.secrets()
        return await tenant_secrets.rotate(), await tenant_secrets.count_by_key()

    count, by_key = use_platform(do)
    print(f"{format_count(count, 'secret')} encrypted again" if count else "nothing to do")
    for key_id, encrypted in by_key.items():
        remark(f"encrypted with key {key_id}: {format_count(encrypted, 'secret')}")
