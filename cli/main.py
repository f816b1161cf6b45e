"""The command `pgworker`: its commands, and how errors end it.

Exit codes: 0 done, 1 failed (any `PgworkerError` but the next two), 2 wrong usage (by typer), 69
database unreachable (`DatabaseUnreachable`), 78 bad configuration (`BadConfiguration`), 130 and 143
ended by SIGINT and SIGTERM (`console.run_async`).
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from pgworker.errors import BadConfiguration, DatabaseUnreachable, PgworkerError
from pgworker.telemetry import configure_logging
from pgworker.version import __version__

from . import clients, db, demo, doctor, jobs, keys, reconcile, run, schema, secrets
from .console import EX_CONFIG, EX_FAILED, EX_UNAVAILABLE, discard_stdout, plain, stderr

app = typer.Typer(
    name="pgworker",
    no_args_is_help=True,
    # `main` turns errors raised on purpose into lines; all others are bugs, and keep their
    # traceback.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run.run)
app.command("jobs")(jobs.list_jobs)
app.command()(jobs.retry)
app.command()(jobs.cancel)
app.command()(jobs.pause)
app.command()(jobs.resume)
app.command()(clients.why)
app.add_typer(clients.app, name="clients")
app.add_typer(db.app, name="db")
app.add_typer(schema.app, name="schema")
app.add_typer(secrets.app, name="secrets")
app.add_typer(keys.app, name="keys")
app.command()(reconcile.reconcile)
app.command()(doctor.doctor)
app.command()(demo.demo)


def _print_version(value: bool) -> None:
    if value:
        print(f"pgworker {__version__}")
        raise typer.Exit


@app.callback()
def pgworker(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="show the version"),
    ] = False,
) -> None:
    """Insert a client, get a working backend: tenant provisioning on PostgreSQL.

    Settings come from the environment and from .env; docs/settings.md lists them. Exit codes:
    0 done, 1 failed, 2 usage, 69 database unreachable, 78 bad configuration.
    """
    # `run` logs what it does, and sets this again by its settings. The others print results: a log
    # line among them is worth it only when it warns.
    configure_logging(None, level=logging.WARNING)


def main() -> None:
    """Run a command; turn each error raised on purpose into a line on stderr and an exit code.

    Any other error is a bug: it leaves with its traceback and exit code 1.
    """
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks a letter for must not end the command.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a TextIOWrapper
    try:
        app()
    except PgworkerError as error:
        sys.exit(_report([error]))
    except ExceptionGroup as group:
        # From a task group: several tasks may have failed at once.
        expected, bugs = group.split((PgworkerError, BrokenPipeError))
        if bugs is not None or expected is None:
            raise
        errors = _flatten(expected)
        if any(isinstance(error, BrokenPipeError) for error in errors):
            discard_stdout()
            sys.exit(EX_FAILED)
        sys.exit(_report(errors))
    except BrokenPipeError:
        discard_stdout()
        sys.exit(EX_FAILED)
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            discard_stdout()


def _report(errors: list[Exception]) -> int:
    """Print the errors, each line once; return the exit code of the first."""
    for line in dict.fromkeys(line for error in errors for line in str(error).splitlines()):
        stderr().print(f"pgworker: {plain(line)}", style="red", markup=False, soft_wrap=True)
    return choose_exit_code(errors[0])


def choose_exit_code(error: Exception) -> int:
    """Return the exit code for an error that was raised on purpose."""
    if isinstance(error, DatabaseUnreachable):
        return EX_UNAVAILABLE
    if isinstance(error, BadConfiguration):
        return EX_CONFIG
    return EX_FAILED


def _flatten(group: ExceptionGroup[Exception]) -> list[Exception]:
    found: list[Exception] = []
    for each in group.exceptions:
        found += _flatten(each) if isinstance(each, ExceptionGroup) else [each]
    return found
