"""What one process makes of the provider's rate limit when it asks nobody."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pgworker.errors import Throttled
from pgworker.providers.rate_limits import Bucket, OwnLimits, RateLimit, Ticket

BUCKET = Bucket("supabase:0123abcd", "acme", "GET /v1/organizations/{scope}", is_crowded=True)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def told(remaining: int | None, reset: float, *, limit: int | None = 20) -> RateLimit:
    return RateLimit(limit, remaining, timedelta(seconds=reset))


def refused(reset: float) -> RateLimit:
    return RateLimit(None, None, timedelta(seconds=reset), is_refusal=True)


async def wait_of(limits: OwnLimits, bucket: Bucket = BUCKET) -> float:
    with pytest.raises(Throttled, match="rate limit of GET /v1/organizations") as caught:
        await limits.take(bucket)
    return caught.value.retry_after.total_seconds()


async def test_a_bucket_that_nothing_is_known_of_is_open() -> None:
    limits = OwnLimits(Clock())
    assert [await limits.take(BUCKET) for _ in range(500)][-1] == Ticket(BUCKET, 1000.0)


async def test_what_is_left_is_counted_down_and_comes_back_when_the_window_ends() -> None:
    limits = OwnLimits(clock := Clock())
    await limits.learn(await limits.take(BUCKET), told(2, 60))
    await limits.take(BUCKET)
    await limits.take(BUCKET)
    clock.now += 20

    assert await wait_of(limits) == 40
    clock.now += 40
    await limits.take(BUCKET)


async def test_of_answers_that_overtake_each_other_the_lower_figure_counts() -> None:
    limits = OwnLimits(Clock())
    first, second = await limits.take(BUCKET), await limits.take(BUCKET)
    await limits.learn(second, told(1, 60))
    await limits.learn(first, told(2, 60))

    await limits.take(BUCKET)
    await wait_of(limits)


async def test_an_answer_of_the_next_window_opens_it() -> None:
    limits = OwnLimits(clock := Clock())
    ticket = await limits.take(BUCKET)
    await limits.learn(ticket, told(0, 2))
    clock.now += 1.5
    await limits.learn(Ticket(BUCKET, clock.now), told(19, 60))

    await limits.take(BUCKET)


async def test_a_slow_answer_of_the_window_before_does_not_fill_it_again() -> None:
    limits = OwnLimits(clock := Clock())
    slow, quick = await limits.take(BUCKET), await limits.take(BUCKET)
    await limits.learn(quick, told(0, 60))
    clock.now += 5
    # Written when the request arrived, five seconds ago.
    await limits.learn(slow, told(1, 60))

    assert await wait_of(limits) == 55


async def test_a_slow_answer_of_the_window_before_does_not_shut_this_one() -> None:
    limits = OwnLimits(clock := Clock())
    slow = await limits.take(BUCKET)
    clock.now += 2
    await limits.learn(await limits.take(BUCKET), told(19, 60))
    # Written two seconds ago, when the last one of that window was sent.
    await limits.learn(slow, told(0, 1))
    clock.now += 5

    await limits.take(BUCKET)
    window = limits.window(BUCKET)
    assert window is not None
    assert (window.used, window.left, window.ends_before) == (1, 18, clock.now + 55)


async def test_a_refusal_shuts_the_bucket_and_no_other() -> None:
    limits = OwnLimits(Clock())
    await limits.learn(await limits.take(BUCKET), told(15, 60))
    await limits.learn(await limits.take(BUCKET), refused(17))

    assert await wait_of(limits) == 17
    for field, other in (("scope", "else"), ("credential", "x"), ("endpoint", "POST /v1/projects")):
        names = {"credential": BUCKET.credential, "scope": "acme", "endpoint": BUCKET.endpoint}
        await limits.take(Bucket(**{**names, field: other}, is_crowded=True))


@pytest.mark.parametrize(
    "answer",
    [
        RateLimit(None, None, None),
        RateLimit(20, 0, None),
        RateLimit(20, None, timedelta(seconds=9)),
        RateLimit(None, 0, timedelta(seconds=9)),
    ],
)
async def test_an_answer_that_tells_only_half_shuts_nothing(answer: RateLimit) -> None:
    limits = OwnLimits(Clock())
    await limits.learn(await limits.take(BUCKET), answer)
    await limits.take(BUCKET)


async def test_windows_that_are_over_are_forgotten() -> None:
    limits = OwnLimits(clock := Clock())
    for number in range(5000):
        bucket = Bucket("supabase:0123abcd", f"ref{number}", "GET", is_crowded=False)
        await limits.learn(await limits.take(bucket), told(10, 60))
        clock.now += 1

    assert len(limits._windows) <= 1000
