"""Where commands print, how they run what is asynchronous, and how they open the platform."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shlex
import shutil
import signal
import sys
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import typer
import uvloop
from rich.console import Console
from rich.text import Text

from pgworker.context import open_platform
from pgworker.db.embedded import default_data_dir
from pgworker.db.pool import STATEMENT_TIMEOUT
from pgworker.providers.registry import list_provider_names
from pgworker.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from pgworker.context import Platform
    from pgworker.settings import Settings

T = TypeVar("T")

EX_FAILED = 1
EX_UNAVAILABLE = 69  # sysexits.h: the database can't be reached
EX_CONFIG = 78  # sysexits.h: a setting can't be used
EX_INTERRUPTED = 128 + signal.SIGINT
EX_TERMINATED = 128 + signal.SIGTERM

# Nobody reads with a ruler what goes into a file or a pipe: nothing is cut there.
UNLIMITED = 100_000

Json = Annotated[bool, typer.Option("--json", help="for programs; stable keys")]
ClientArgument = Annotated[str, typer.Argument(metavar="CLIENT", help="id or unique name")]


def stdout() -> Console:
    """Return the console for results; colours only on a terminal, and not with NO_COLOR."""
    return Console(width=None if sys.stdout.isatty() else UNLIMITED, highlight=False)


def stderr() -> Console:
    """Return the console for remarks and errors."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else UNLIMITED, highlight=False)


def remark(message: str) -> None:
    """Say something that isn't the result, on stderr."""
    stderr().print(Text(plain(message), style="dim"), soft_wrap=True)


def plain(value: object) -> str:
    """Return a text without control characters: names and errors come from strangers."""
    return "".join(letter if letter.isprintable() else " " for letter in str(value))


def print_json(value: object) -> None:
    """Print JSON: ISO 8601 times, durations in seconds."""
    print(json.dumps(value, indent=2, default=_encoded))


def _encoded(value: object) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID | Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Not asdict: it copies deeply, and not every value of ours can be copied.
        return {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
    msg = f"no JSON for {type(value).__name__}"
    raise TypeError(msg)


def usage_error(message: str) -> typer.BadParameter:
    """Return an error about how the command was called; exit code 2."""
    return typer.BadParameter(message)


def known_provider(name: str | None) -> str | None:
    """Return the name of a provider that an option gives; exit code 2 when there is none."""
    if name is None or name in (names := list_provider_names()):
        return name
    raise usage_error(f"there is no provider {plain(name)!r}: choose one of {', '.join(names)}")


def ask(question: Callable[[Platform], Awaitable[T]]) -> T:
    """Open the platform, put one question to it, close it again.

    Raises:
        PgworkerError: purposeful; `main` turns it into one line.
    """
    settings = load_settings()

    async def answer() -> T:
        async with open_platform(
            settings, pool_size=4, statement_timeout=STATEMENT_TIMEOUT
        ) as platform:
            return await question(platform)

    tell_embedded(settings)
    return run_async(answer())


def tell_embedded(settings: Settings) -> None:
    """Say so when there is no DATABASE_URL: an empty list is a riddle otherwise."""
    if settings.database_url is None:
        remark(f"DATABASE_URL is not set: using the embedded PostgreSQL in {data_dir(settings)}")


def data_dir(settings: Settings) -> Path:
    """Return where the embedded server keeps its data."""
    return (settings.data_dir or default_data_dir()).absolute()


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; SIGINT and SIGTERM cancel it in good order, closing what is open."""
    terminated = False

    async def guarded() -> T:
        task = asyncio.current_task()
        assert task is not None

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await work

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(guarded())
    except KeyboardInterrupt:
        raise typer.Exit(EX_INTERRUPTED) from None
    except asyncio.CancelledError:
        if not terminated:
            raise
        raise typer.Exit(EX_TERMINATED) from None


def own_command() -> str:
    """Return what to type for this command: its path where the shell wouldn't find it by name."""
    called = Path(sys.argv[0])
    found = shutil.which("pgworker")
    known = found is not None and called.exists() and called.samefile(found)
    return "pgworker" if known else shlex.quote(str(called))


def discard_stdout() -> None:
    """Send what is still buffered for stdout to nowhere, because its reader has closed the pipe.

    Without this the interpreter's own flush at exit would raise `BrokenPipeError` again.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
