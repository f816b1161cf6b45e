"""The campaign that continuous integration runs: every step boundary once, and two short rounds.

`make chaos MINUTES=n SEED=s` is the long one.
"""

from __future__ import annotations

import fnmatch
import time
from typing import TYPE_CHECKING

import pytest

from chaos.campaign import expected, run_round
from chaos.checker import check
from chaos.plan import LATEST_CREATE, plan_round
from chaos.scenarios import SCENES
from chaos.sweep import sweep
from chaos.time_scaling import CREATE_LOOKUP

if TYPE_CHECKING:
    from chaos.failpoints import Act
    from chaos.testbed import Stage

# Continuous integration waits for it: a busy machine gets less far, and says so.
KILL_SECONDS = 150.0
SAMPLE = 12
SAMPLE_SECONDS = 45.0
SEED = 20260101
ROUND_SECONDS = 8.0
# A busy machine takes its time; what stands still is given up long before.
a_while = pytest.mark.timeout(1800)
# Some steps are taken by chance alone (a lease that happens to be renewed), and may not come again.
BY_CHANCE = 0.05

# Without these the discovery would be blind. Patterns, because transactions grow.
LANDMARKS = (
    "before jobs.claim",
    "after tenants.commit_intent",
    "after tenants.begin_step",
    "before POST /v1/projects",
    "after POST /v1/projects",
    "after tenants.fulfil",
    "before secrets.put",
    "after jobs.advance",
    "before POST /v1/projects/{ref}/database/query: apply 20260101000100",
    "after POST /v1/projects/{ref}/database/query: apply 20260101000100",
    "after POST /v1/projects/{ref}/database/query: create index concurrently",
    "before jobs.complete",
)


async def sweep_over(
    stage: Stage, acts: list[Act], share: tuple[int, int], *, seconds: float
) -> None:
    """Sweep over all scenes, for so long; everything must hold.

    Skips the test at its end when there was no time for some of it, and says for how much.
    """
    until = time.monotonic() + seconds
    done: set[tuple[str, str]] = set()
    wanted: set[tuple[str, str]] = set()
    boundaries: set[str] = set()
    left_out: set[tuple[str, str]] = set()
    for scene in SCENES:
        swept, evidence = await sweep(
            scene, stage, acts=acts, every_passage=False, share=share, done=done, until=until
        )
        assert swept.with_cases(check(evidence, expected())) == []
        assert swept.problems() == []
        wanted |= swept.wanted()
        boundaries |= swept.boundaries
        left_out |= swept.left_out
    left_out -= done
    missed = wanted - done - left_out
    landmarks = {each for mark in LANDMARKS for each in fnmatch.filter(boundaries, mark)}
    assert {boundary for _, boundary in missed} & landmarks == set()
    assert len(missed) <= BY_CHANCE * len(wanted), missed
    if left_out:
        pytest.skip(
            f"the rest of a sweep ({len(left_out)} of {len(wanted)}): this machine had no more "
            f"time for it in {seconds:g} s; what ran held, and make chaos runs all"
        )


@a_while
async def test_a_worker_killed_at_any_step_boundary_leaves_nothing_twice_and_nothing_lost(
    stage: Stage,
) -> None:
    await sweep_over(stage, ["die"], (0, 1), seconds=KILL_SECONDS)


@a_while
async def test_a_run_without_faults_discovers_the_boundaries(stage: Stage) -> None:
    (scene,) = [scene for scene in SCENES if scene.name == "a project"]
    swept, _ = await sweep(scene, stage, acts=[], every_passage=False)

    unseen = [mark for mark in LANDMARKS if not fnmatch.filter(swept.boundaries, mark)]
    assert unseen == []


@a_while
async def test_a_worker_that_is_frozen_or_robbed_of_an_answer_or_of_its_job_does_no_harm(
    stage: Stage,
) -> None:
    await sweep_over(stage, ["freeze", "lose", "usurp"], (0, SAMPLE), seconds=SAMPLE_SECONDS)


@a_while
@pytest.mark.parametrize("number", [0, 1])
async def test_everything_holds_after_a_round_of_random_faults(stage: Stage, number: int) -> None:
    outcome = await run_round(plan_round(SEED, number, seconds=ROUND_SECONDS), stage)

    assert outcome.found() == []
    assert outcome.faults.total() > 5, outcome.faults


def test_a_create_that_everything_delays_shows_up_while_it_is_looked_for() -> None:
    # With room for a machine that is slower than when it was asked.
    assert LATEST_CREATE < CREATE_LOOKUP * 2 / 3


def test_a_seed_gives_the_same_plan_again_and_another_one_another() -> None:
    assert plan_round(7, 3) == plan_round(7, 3)
    assert plan_round(7, 3) != plan_round(8, 3)
    assert plan_round(7, 3) != plan_round(7, 4)
