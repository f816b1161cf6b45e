"""`make bench`: measure pgworker beside its peers and the limits of this machine."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from bench.cells import latency, throughput
from bench.running import Bench
from bench.server import bench_server

CELLS = {"throughput": throughput, "latency": latency}
BUILD = Path(__file__).parents[1] / "build" / "bench"


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the chosen cells, one after the other, on one server."""
    results: dict[str, Any] = {}
    async with bench_server(BUILD) as server:
        bench = Bench(server, arguments.peers, arguments.rounds, arguments.scale)
        for name in arguments.cells:
            print(name, file=sys.stderr, flush=True)
            results[name] = await CELLS[name].measure(bench)
    return results


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "--cells",
        type=lambda text: text.split(","),
        default=list(CELLS),
        help=f"some of {','.join(CELLS)}",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the counts of jobs")
    parser.add_argument("--peers", type=Path, help="an interpreter that has the peers")
    return parser.parse_args()


def main() -> None:
    """Measure, and write what was measured."""
    results = asyncio.run(measure(parse()))
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
