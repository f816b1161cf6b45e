"""What a violation leaves on disk, so that it can be looked into when the campaign is long over."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chaos.snapshot import Evidence
    from chaos.testbed import Stage

NOT_ROWS = {"name", "texts", "secrets", "unsealable"}


def keep(folder: Path, evidence: Evidence, stage: Stage, found: Sequence[str]) -> None:
    """Write what was found and what it was found in; what the folder held before, goes.

    Each platform's rows, the simulator's ledger, and every worker's log and the boundaries that it
    passed, which faults happened there included.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "found.txt").write_text("".join(f"{text}\n" for text in found))
    if evidence.ledger is not None:
        _write(folder / "ledger.json", evidence.ledger)
    _write(folder / "tenants.json", {ref: asdict(each) for ref, each in evidence.tenants.items()})
    for platform in evidence.platforms:
        rows = {name: value for name, value in asdict(platform).items() if name not in NOT_ROWS}
        _write(folder / f"{platform.name}.json", rows)
        for worker in stage.workers.of(platform.name):
            for what in ("log", "trace"):
                if (worker.folder / what).exists():
                    shutil.copy(worker.folder / what, folder / f"{worker.folder.name}.{what}")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, default=str) + "\n")
