"""Writes what a failed part of a campaign left behind, so that it can be examined later."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chaos.snapshot import Snapshot
    from chaos.testbed import Testbed

NOT_ROWS = {"name", "texts", "secrets", "decryption_errors"}


def write_artifacts(
    folder: Path, snapshot: Snapshot, testbed: Testbed, failures: Sequence[str]
) -> None:
    """Write the failures and everything to explain them; earlier files in the folder are deleted.

    That is each platform's rows, the simulator's ledger, each worker's log, and its trace: the
    boundaries that it passed and the failpoints that fired.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "failures.txt").write_text("".join(f"{failure}\n" for failure in failures))
    if snapshot.ledger is not None:
        _write(folder / "ledger.json", snapshot.ledger)
    _write(folder / "tenants.json", {ref: asdict(each) for ref, each in snapshot.tenants.items()})
    for platform in snapshot.platforms:
        rows = {name: value for name, value in asdict(platform).items() if name not in NOT_ROWS}
        _write(folder / f"{platform.name}.json", rows)
        for worker in testbed.launcher.get_workers(platform.name):
            for file in ("log", "trace"):
                if (worker.folder / file).exists():
                    shutil.copy(worker.folder / file, folder / f"{worker.folder.name}.{file}")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, default=str) + "\n")
