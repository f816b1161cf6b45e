from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from bench.contender import Ticks, unless_ended

ROOT = Path(__file__).parents[2]
TAKE_64_MIB = """
from bench.contender import peak_mib
before = peak_mib()
held = bytearray(b"x" * 64 * 2**20)
print(before, peak_mib() - before)
"""


async def test_a_worker_that_breaks_ends_the_wait_with_its_error() -> None:
    async def broken() -> None:
        raise ValueError("no such queue")

    with pytest.raises(ValueError, match="no such queue"):
        await unless_ended(asyncio.create_task(broken()), asyncio.Event().wait())


async def test_a_worker_that_leaves_before_its_jobs_are_done_is_no_measurement() -> None:
    async def leaves() -> None:
        return None

    with pytest.raises(RuntimeError, match="left before its jobs were done"):
        await unless_ended(asyncio.create_task(leaves()), asyncio.Event().wait())


async def test_time_counts_from_the_end_of_the_warm_up_to_the_last_job() -> None:
    ticks = Ticks(2, 3)
    ticks.tick()
    assert ticks.began == 0
    ticks.tick()
    assert ticks.began > 0
    assert not ticks.reached.is_set()
    ticks.tick()
    assert ticks.reached.is_set()
    assert ticks.ended >= ticks.began


def test_memory_is_that_of_this_process() -> None:
    # In one of its own, as contenders are: the peak of this one may have been much higher before.
    own = subprocess.run(
        [sys.executable, "-c", TAKE_64_MIB], cwd=ROOT, capture_output=True, text=True, check=True
    )
    before, more = map(float, own.stdout.split())

    assert 5 < before < 300
    assert 60 < more < 200
