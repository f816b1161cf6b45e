"""The fractions of a lease fit each other."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pgworker.db.pool import STATEMENT_TIMEOUT
from pgworker.queue.lease_timing import LeaseTiming

# Below 6 s a statement's time-out is a second, and no longer a sixth of the lease.
LEASES = [LeaseTiming.from_lease(timedelta(seconds=seconds)) for seconds in (6, 30, 90, 3600)]

pytestmark = pytest.mark.parametrize("timing", LEASES, ids=lambda timing: str(timing.lease))


def test_a_renewal_that_times_out_is_tried_again_before_the_phase_is_stopped(
    timing: LeaseTiming,
) -> None:
    first_has_failed = timing.renew_every + 3 * timing.renew_timeout
    second_is_answered = first_has_failed + timing.retry_every + timing.renew_timeout

    assert second_is_answered < timing.lease - timing.fence_margin


def test_a_renewal_that_fails_at_once_is_tried_at_least_ten_times_more(
    timing: LeaseTiming,
) -> None:
    left = timing.lease - timing.fence_margin - timing.renew_every

    assert left / timing.retry_every >= 10


def test_a_phase_is_stopped_well_before_its_lease_runs_out(timing: LeaseTiming) -> None:
    stopped_at_the_latest = timing.lease - timing.fence_margin + timing.fence_every

    assert timing.lease - stopped_at_the_latest >= timing.lease / 10


def test_three_waits_of_a_statement_fit_into_half_a_lease(timing: LeaseTiming) -> None:
    assert 3 * timing.statement_timeout <= timing.lease / 2


def test_a_worker_waits_for_a_statement_no_longer_than_any_other_program(
    timing: LeaseTiming,
) -> None:
    assert timing.statement_timeout <= STATEMENT_TIMEOUT
    assert LeaseTiming.from_lease(timedelta(seconds=1)).statement_timeout == timedelta(seconds=1)
