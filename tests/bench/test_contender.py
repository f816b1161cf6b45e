from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from bench.contender import Ticks, await_unless_ended

ROOT = Path(__file__).parents[2]
TAKE_64_MIB = """
from bench.contender import read_peak_mib
before = read_peak_mib()
held = bytearray(b"x" * 64 * 2**20)
print(before, read_peak_mib() - before)
"""


async def test_a_failed_worker_ends_the_wait_with_its_error() -> None:
    async def fail() -> None:
        raise ValueError("no such queue")

    with pytest.raises(ValueError, match="no such queue"):
        await await_unless_ended(asyncio.create_task(fail()), asyncio.Event().wait())


async def test_a_worker_that_ends_before_its_jobs_are_done_is_no_measurement() -> None:
    async def end() -> None:
        return None

    with pytest.raises(RuntimeError, match="ended before its jobs were done"):
        await await_unless_ended(asyncio.create_task(end()), asyncio.Event().wait())


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
    # In a process of its own, like contenders: the peak of this one may have been much higher.
    own = subprocess.run(
        [sys.executable, "-c", TAKE_64_MIB], cwd=ROOT, capture_output=True, text=True, check=True
    )
    before, more = map(float, own.stdout.split())

    assert 5 < before < 300
    assert 60 < more < 200
