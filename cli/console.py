"""What all commands share: where they print, how they run coroutines, how they open the platform.

Results go to stdout, everything else to stderr, so that a pipe gets results only.
"""

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

from pgworker.context import locate_data_dir, open_platform
from pgworker.db.pool import STATEMENT_TIMEOUT
from pgworker.providers.registry import list_provider_names
from pgworker.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from pgworker.context import Platform
    from pgworker.settings import Settings

T = TypeVar("T")

# 69 and 78 are those of sysexits.h, so that a supervisor can start again when the database was
# down, and leave a bad setting to a person. Above 128: the signal that ended the command, as shells
# count it.
EX_FAILED = 1
EX_UNAVAILABLE = 69  # the database can't be reached
EX_CONFIG = 78  # a setting can't be used
EX_INTERRUPTED = 128 + signal.SIGINT
EX_TERMINATED = 128 + signal.SIGTERM

# Columns of a file or a pipe, which has no width: nothing is cut there.
UNLIMITED = 100_000

Json = Annotated[bool, typer.Option("--json", help="for programs; stable keys")]
ClientArgument = Annotated[str, typer.Argument(metavar="CLIENT", help="id or unique name")]


def stdout() -> Console:
    """Return the console for results.

    Rich shows colours on a terminal only, and not with NO_COLOR. `highlight` is off: it would
    colour numbers and paths by itself.
    """
    return Console(width=None if sys.stdout.isatty() else UNLIMITED, highlight=False)


def stderr() -> Console:
    """Return the console for remarks and errors."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else UNLIMITED, highlight=False)


def remark(message: str) -> None:
    """Print something that isn't the result, on stderr."""
    stderr().print(Text(plain(message), style="dim"), soft_wrap=True)


def plain(value: object) -> str:
    """Return a text without control characters, each of them replaced by a blank.

    Names and errors come from outside: an escape sequence in them must not reach the terminal, and
    a line break must not make two lines of one.
    """
    return "".join(letter if letter.isprintable() else " " for letter in str(value))


def print_json(value: object) -> None:
    """Print a value as JSON: times in ISO 8601 with zone, durations in seconds, keys by field."""
    print(json.dumps(value, indent=2, default=_encode))


def _encode(value: object) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID | Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Not `asdict`: it makes deep copies, and some of our values can't be copied.
        return {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
    msg = f"no JSON for {type(value).__name__}"
    raise TypeError(msg)


def usage_error(message: str) -> typer.BadParameter:
    """Return an error about how the command was called, to be raised; typer exits with 2."""
    return typer.BadParameter(message)


def known_provider(name: str | None) -> str | None:
    """Return the name of a provider that an option gives; exit code 2 when there is none."""
    if name is None or name in (names := list_provider_names()):
        return name
    raise usage_error(f"there is no provider {plain(name)!r}: choose one of {', '.join(names)}")


def use_platform(action: Callable[[Platform], Awaitable[T]]) -> T:
    """Open the platform, do one thing with it, close it; return what the action returns.

    The exit code follows from the error (`main.choose_exit_code`): 78 for a bad setting, 69 when
    the database can't be reached, else 1.

    Raises:
        PgworkerError: raised on purpose; `main` prints it as one line.
    """
    settings = load_settings()

    async def run() -> T:
        # Without a statement timeout of its own it would get the short one of a worker.
        async with open_platform(
            settings, pool_size=4, statement_timeout=STATEMENT_TIMEOUT
        ) as platform:
            return await action(platform)

    announce_embedded(settings)
    return run_async(run())


def announce_embedded(settings: Settings) -> None:
    """Say that the embedded server is used: an unset DATABASE_URL may be a mistake."""
    if settings.database_url is None:
        directory = locate_data_dir(settings)
        remark(f"DATABASE_URL is not set: using the embedded PostgreSQL in {directory}")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end. SIGINT and SIGTERM cancel it, so that it closes what is open.

    Raises:
        typer.Exit: 130 after SIGINT, 143 after SIGTERM.
    """
    terminated = False

    async def guarded() -> T:
        task = asyncio.current_task()
        assert task is not None

        # `asyncio.Runner` does this for SIGINT only.
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
            # A bug: a part of the work has cancelled itself.
            raise
        raise typer.Exit(EX_TERMINATED) from None


def find_own_command() -> str:
    """Return what to type for this command: its name, or its path if the shell can't find it.

    `make demo` runs the one in `.venv/bin`, which is not on its user's PATH.
    """
    called = Path(sys.argv[0])
    found = shutil.which("pgworker")
    known = found is not None and called.exists() and called.samefile(found)
    return "pgworker" if known else shlex.quote(str(called))


def discard_stdout() -> None:
    """Send what is still buffered for stdout to nowhere, because its reader has closed the pipe.

    Without this the interpreter's own flush at exit would raise `BrokenPipeError` again.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
