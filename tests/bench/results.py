"""Results of a bench run, made by hand."""

from __future__ import annotations

from typing import Any

from bench import field

Run = dict[str, Any]


def make_runs(entry: field.Entry, figure: str, *values: float) -> list[Run]:
    """Return a run for each round, with these values of the figure."""
    run = {"label": entry.label, "name": entry.name, "kind": entry.kind}
    return [run | {"round": n, figure: value} for n, value in enumerate(values, start=1)]


def make_results(**cells: list[Run]) -> dict[str, Any]:
    """Return results like those of `measure`."""
    conditions = {
        "date": "2026-01-02",
        "machine": "2 cores, 24 GiB",
        "postgres": "18",
        "python": "3.11",
        "pgworker": "0.1.0",
        "settings": "fsync=on",
        "peers": "pgqueuer 1.6.0",
        "rounds": 3,
        "scale": 1.0,
        "minutes": 12.0,
    }
    return {"conditions": conditions, "cells": cells}


BEST_PEER = field.make_peer("pgqueuer", 1, batch_size=500)
SLOW_PEER = field.make_peer("pgqueuer", 1)
