"""Starts workers quickly: imports pgworker once, then forks for each of them.

The protocol is JSON lines over stdin and stdout. A request `{"start": [name, arguments,
environment, folder]}` is answered by `{"started": name, "pid": n}`, and later by `{"stopped": pid}`
and `{"exited": pid, "status": n}` (negative: the signal). A worker is `pgworker` with these
arguments, in a process of its own that has failpoints. When stdin ends, all workers are killed.
"""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import json
import os
import selectors
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer.main
from pgworker.cli.main import app  # type: ignore[import-not-found]  # noqa: TID251
from pgworker.cli.main import main as pgworker  # noqa: TID251

from chaos.failpoints import FailpointRegistry
from chaos.instrument import Instrumentation
from chaos.mutations import MUTATION, MUTATIONS
from chaos.time_scaling import SLOWDOWN, scale_durations
from pgworker.provisioning import workflow


def serve() -> None:
    """Start workers until stdin ends."""
    instrumentation = Instrumentation()
    _warm_up()
    gc.freeze()
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    children: set[int] = set()
    unread = b""
    try:
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if woken in ready:
                os.read(woken, 4096)
                _report_changes(children)
            if sys.stdin.fileno() in ready:
                received = os.read(sys.stdin.fileno(), 65536)
                if not received:
                    return
                *lines, unread = (unread + received).split(b"\n")
                for line in lines:
                    name, arguments, environment, folder = json.loads(line)["start"]
                    pid = os.fork()
                    if pid == 0:
                        selector.close()
                        _run_worker(instrumentation, arguments, environment, Path(folder))
                    children.add(pid)
                    _send(started=name, pid=pid)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)


def _warm_up() -> None:
    """Do once what every worker would repeat, and what is the same for all of them."""
    typer.main.get_command = functools.cache(typer.main.get_command)
    typer.main.get_command(app)
    setattr(workflow, "entry_points", functools.cache(importlib.metadata.entry_points))  # noqa: B010
    workflow.find_workflows(None)


def _report_changes(children: set[int]) -> None:
    for pid in list(children):
        while pid in children:
            found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if not found:
                break
            if os.WIFSTOPPED(status):
                _send(stopped=pid)
            else:
                children.discard(pid)
                _send(exited=pid, status=os.waitstatus_to_exitcode(status))


def _send(**message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _run_worker(
    instrumentation: Instrumentation,
    arguments: list[str],
    environment: dict[str, str],
    folder: Path,
) -> NoReturn:
    """Run the command line as a fresh process would, and end with its exit code."""
    code = os.EX_SOFTWARE
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        slowdown = float(os.environ.pop(SLOWDOWN))
        scale_durations(slowdown)
        MUTATIONS[os.environ.pop(MUTATION, "nothing")].apply()
        sys.argv = ["pgworker", *arguments]
        instrumentation.failpoints = FailpointRegistry(folder / "trace", folder / "failpoints")
        pgworker()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  # the end of the process: printed as Python would
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
