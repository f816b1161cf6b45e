"""Broken on purpose, pgworker does what it mustn't, and the checker says so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chaos.campaign import expected
from chaos.checker import check
from chaos.mutations import SABOTAGE, SABOTAGES
from chaos.scenarios import Scene
from chaos.sweep import Case, run_case
from chaos.testbed import World, a_world
from chaos.time_scaling import LEASE, measure_pace

if TYPE_CHECKING:
    from chaos.testbed import Stage

PROJECT = Scene("a project", "supabase")
# A project isn't listed yet when the next worker looks for it, though well before it stops looking:
# only the record tells of it.
LISTING_LAG_LEASES = 3.5


async def suffer(world: World, name: str) -> Case:
    """Lead one client through the faults, without the safeguard."""
    sabotage = SABOTAGES[name]
    platform = await world.add_platform(f"without_{name}")
    if sabotage.sql:
        await world.stage.platform.run(sabotage.sql, database=platform)
    case = Case(sabotage.orders)
    await run_case(world, PROJECT, case, platform, variables={SABOTAGE: name})
    return case


@pytest.mark.timeout(900)
async def test_each_safeguard_that_is_taken_out_is_missed(stage: Stage) -> None:
    pace = measure_pace()
    lag = LISTING_LAG_LEASES * LEASE * pace
    async with a_world(
        "supabase", stage, simulated={"listing_lag_seconds": lag}, pace=pace
    ) as world:
        cases = await asyncio.gather(*(suffer(world, name) for name in SABOTAGES))
        violations = check(await world.evidence(), expected())

    for sabotage, case in zip(SABOTAGES.values(), cases, strict=True):
        found = {x.invariant: str(x) for x in violations if str(case.client_id) in str(x)}
        print(f"without {sabotage.missing}: {'; '.join(found.values()) or 'everything held'}")
        assert case.is_hit, f"{case} never happened"
        if sabotage.found is None:
            assert found == {}
        else:
            assert sabotage.found in found, f"without {sabotage.missing}: {found}"
