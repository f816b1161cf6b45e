"""The command `pgworker`: its parts, and what becomes of errors."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from pgworker.errors import BadConfiguration, DatabaseUnreachable, PgworkerError
from pgworker.telemetry import configure_logging
from pgworker.version import __version__

from . import clients, db, demo, doctor, jobs, keys, reconcile, run, schema, secrets
from .console import EX_CONFIG, EX_FAILED, EX_UNAVAILABLE, forget_broken_pipe, plain, stderr

app = typer.Typer(
    name="pgworker",
    no_args_is_help=True,
    # A bug should look like one; whatever is raised on purpose becomes one line below.
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
    # `run` logs what it does; the others tell by their output, and warn at most.
    configure_logging(None, level=logging.WARNING)


def main() -> None:
    """Run a command; turn errors raised on purpose into a line on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a letter shows a question mark instead.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a TextIOWrapper
    try:
        app()
    except PgworkerError as error:
        sys.exit(_report([error]))
    except ExceptionGroup as group:
        purposeful, bugs = group.split(PgworkerError)
        if bugs is not None or purposeful is None:
            raise
        sys.exit(_report(_leaves(purposeful)))
    except BrokenPipeError:
        forget_broken_pipe()
        sys.exit(EX_FAILED)
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            forget_broken_pipe()


def _report(errors: list[Exception]) -> int:
    for line in dict.fromkeys(line for error in errors for line in str(error).splitlines()):
        stderr().print(f"pgworker: {plain(line)}", style="red", markup=False, soft_wrap=True)
    return exit_code(errors[0])


def exit_code(error: Exception) -> int:
    """Return the exit code that stands for the error."""
    if isinstance(error, DatabaseUnreachable):
        return EX_UNAVAILABLE
    if isinstance(error, BadConfiguration):
        return EX_CONFIG
    return EX_FAILED


def _leaves(group: ExceptionGroup[PgworkerError]) -> list[Exception]:
    found: list[Exception] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, ExceptionGroup) else [each]
    return found
