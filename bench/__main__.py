"""`make bench`: compare pgworker with its peers and with the limits of this machine."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import picture, report
from bench.cells import (
    awaiting,
    degradation,
    enqueue,
    latency,
    processes,
    tenants,
    throughput,
)
from bench.rounds import FAILURES
from bench.running import ROOT, Bench
from bench.server import SETTINGS, bench_server
from bench.targets import judge
from pgworker.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.targets import Run

CELLS = {
    "throughput": throughput,
    "latency": latency,
    "enqueue": enqueue,
    "awaiting": awaiting,
    "processes": processes,
    "tenants": tenants,
    "degradation": degradation,  # takes longest: gets the rest of the time
}
BUILD = ROOT / "build" / "bench"
DOCS = ROOT / "docs"
PEERS = ("pgqueuer", "awa-pg", "procrastinate", "chancy", "absurd-sdk", "dbos")
VERSIONS = (
    "import importlib.metadata as m, sys\n"
    "installed = {d.name: d.version for d in m.distributions()}\n"
    "print(', '.join(f'{n} {installed[n]}' for n in sys.argv[1:] if n in installed))"
)


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the chosen cells, one after the other, on one server."""
    cells: dict[str, list[Run]] = {}
    began = time.monotonic()
    deadline = began + arguments.minutes * 60
    async with bench_server(BUILD) as server:
        bench = Bench(server, arguments.peers, arguments.rounds, arguments.scale, deadline)
        for name in arguments.cells:
            minutes = (time.monotonic() - began) / 60
            print(f"{name} ({minutes:.1f} minutes so far)", file=sys.stderr, flush=True)
            try:
                cells[name] = await CELLS[name].measure(bench)
            except FAILURES as error:
                cells[name] = [{"label": name, "failed": f"{name}: {error!r}"}]
                print(f"  {error!r}", file=sys.stderr)
        postgres = await server.admin.fetchval("show server_version")
    conditions = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": describe_machine(),
        "postgres": postgres,
        "python": platform.python_version(),
        "pgworker": __version__,
        "settings": ", ".join(f"{name}={value}" for name, value in SETTINGS.items()),
        "peers": list_peers(arguments.peers),
        "rounds": arguments.rounds,
        "scale": arguments.scale,
        "minutes": (time.monotonic() - began) / 60,
    }
    return {"conditions": conditions, "cells": cells}


def describe_machine() -> str:
    """Return the processor and the memory of the machine."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({model}), {gib:.0f} GiB"


def list_peers(python: Path | None) -> str:
    """Return the versions of the peers that are installed."""
    if python is None:
        return ""
    command = [str(python), "-c", VERSIONS, *PEERS]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def write(results: Mapping[str, Any], *, publish: bool) -> None:
    """Write the report and its picture to build/bench; with `publish`, to docs as well."""
    places = [(BUILD / "report.md", BUILD / "bench.svg", "bench.svg")]
    if publish:
        places.append((DOCS / "benchmarks.md", DOCS / "images" / "bench.svg", "images/bench.svg"))
    for text, image, link in places:
        text.write_text(report.render(results, picture=link))
        image.write_text(picture.draw(results["cells"]))


def print_verdicts(results: Mapping[str, Any]) -> None:
    """Print the verdicts."""
    for verdict in judge(results["cells"]):
        if verdict.value is not None:
            print(
                f"{verdict.name}: {verdict.value:.2f} (target {verdict.target}) {verdict.outcome}"
            )
    print(f"report: {(BUILD / 'report.md').relative_to(ROOT)}")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "--cells", type=parse_cells, default=list(CELLS), help=f"some of {','.join(CELLS)}"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--minutes", type=float, default=25.0, help="after this time no cell starts another round"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all counts of jobs")
    parser.add_argument("--peers", type=Path, help="an interpreter that has the peers")
    parser.add_argument(
        "--publish", action="store_true", help="write docs/benchmarks.md and its picture as well"
    )
    parser.add_argument(
        "--again", action="store_true", help="report the last results again, without measuring"
    )
    return parser.parse_args(arguments)


def parse_cells(text: str) -> list[str]:
    """Read the names of cells."""
    names = text.split(",")
    for name in names:
        if name not in CELLS:
            raise argparse.ArgumentTypeError(f"unknown cell {name!r}: known are {','.join(CELLS)}")
    return names


def main() -> None:
    """Measure, and write the results."""
    arguments = parse_arguments()
    # A shell lets background jobs ignore Ctrl-C. Both signals must stop our server.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    kept = BUILD / "results.json"
    if arguments.again:
        results = json.loads(kept.read_text())
    else:
        try:
            results = asyncio.run(measure(arguments))
        except KeyboardInterrupt:
            sys.exit("bench: interrupted, nothing is reported")
        kept.write_text(json.dumps(results))
    write(results, publish=arguments.publish)
    print_verdicts(results)


if __name__ == "__main__":
    main()
