"""Without one of its safeguards pgworker violates an invariant, and the checker finds it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chaos.campaign import expect
from chaos.checker import check
from chaos.mutations import MUTATION, MUTATIONS
from chaos.scenarios import Scenario
from chaos.sweep import Case, run_case
from chaos.testbed import Sandbox, open_sandbox
from chaos.time_scaling import LEASE, measure_slowdown

if TYPE_CHECKING:
    from chaos.testbed import Testbed

PROJECT = Scenario("a project", "supabase")
# A project isn't listed yet when the next worker looks it up, but it is well before the look-up
# ends: until then only the record shows that it exists.
LISTING_LAG_LEASES = 3.5


async def run_mutation(sandbox: Sandbox, name: str) -> Case:
    """Run one client through the faults, without the safeguard."""
    mutation = MUTATIONS[name]
    platform = await sandbox.add_platform(f"without_{name}")
    if mutation.sql:
        await sandbox.testbed.platform.run(mutation.sql, database=platform)
    case = Case(mutation.failpoints)
    await run_case(sandbox, PROJECT, case, platform, variables={MUTATION: name})
    return case


@pytest.mark.timeout(900)
async def test_each_removed_safeguard_causes_its_violation(testbed: Testbed) -> None:
    slowdown = measure_slowdown()
    lag = LISTING_LAG_LEASES * LEASE * slowdown
    async with open_sandbox(
        "supabase", testbed, simulated={"listing_lag_seconds": lag}, slowdown=slowdown
    ) as sandbox:
        cases = await asyncio.gather(*(run_mutation(sandbox, name) for name in MUTATIONS))
        violations = check(await sandbox.take_snapshot(), expect())

    for mutation, case in zip(MUTATIONS.values(), cases, strict=True):
        found = {x.invariant: str(x) for x in violations if str(case.client_id) in str(x)}
        print(f"without {mutation.removed}: {'; '.join(found.values()) or 'every invariant holds'}")
        assert case.is_hit, f"{case} never happened"
        if mutation.violated is None:
            assert found == {}
        else:
            assert mutation.violated in found, f"without {mutation.removed}: {found}"
