"""The rate limit as one process follows it by itself."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pgworker.errors import Throttled
from pgworker.providers.rate_limits import Bucket, LocalLimiter, RateLimit, Reservation

BUCKET = Bucket("supabase:0123abcd", "acme", "GET /v1/organizations/{scope}", is_contended=True)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def reported(remaining: int | None, reset: float, *, limit: int | None = 20) -> RateLimit:
    return RateLimit(limit, remaining, timedelta(seconds=reset))


def refused(reset: float) -> RateLimit:
    return RateLimit(None, None, timedelta(seconds=reset), is_refusal=True)


async def read_wait(limiter: LocalLimiter, bucket: Bucket = BUCKET) -> float:
    with pytest.raises(Throttled, match="rate limit of GET /v1/organizations") as caught:
        await limiter.reserve(bucket)
    return caught.value.retry_after.total_seconds()


async def test_a_bucket_without_any_report_is_open() -> None:
    limiter = LocalLimiter(Clock())
    assert [await limiter.reserve(BUCKET) for _ in range(500)][-1] == Reservation(BUCKET, 1000.0)


async def test_what_is_left_is_counted_down_until_the_window_ends() -> None:
    limiter = LocalLimiter(clock := Clock())
    await limiter.report(await limiter.reserve(BUCKET), reported(2, 60))
    await limiter.reserve(BUCKET)
    await limiter.reserve(BUCKET)
    clock.now += 20

    assert await read_wait(limiter) == 40
    clock.now += 40
    await limiter.reserve(BUCKET)


async def test_the_lower_number_counts_when_responses_overtake_each_other() -> None:
    limiter = LocalLimiter(Clock())
    first, second = await limiter.reserve(BUCKET), await limiter.reserve(BUCKET)
    await limiter.report(second, reported(1, 60))
    await limiter.report(first, reported(2, 60))

    await limiter.reserve(BUCKET)
    await read_wait(limiter)


async def test_a_response_of_the_next_window_opens_it() -> None:
    limiter = LocalLimiter(clock := Clock())
    reservation = await limiter.reserve(BUCKET)
    await limiter.report(reservation, reported(0, 2))
    clock.now += 1.5
    await limiter.report(Reservation(BUCKET, clock.now), reported(19, 60))

    await limiter.reserve(BUCKET)


async def test_a_slow_response_does_not_fill_its_window_again() -> None:
    limiter = LocalLimiter(clock := Clock())
    slow, quick = await limiter.reserve(BUCKET), await limiter.reserve(BUCKET)
    await limiter.report(quick, reported(0, 60))
    clock.now += 5
    # Written when the request arrived, five seconds ago.
    await limiter.report(slow, reported(1, 60))

    assert await read_wait(limiter) == 55


async def test_a_slow_response_of_the_last_window_does_not_close_this_one() -> None:
    limiter = LocalLimiter(clock := Clock())
    slow = await limiter.reserve(BUCKET)
    clock.now += 2
    await limiter.report(await limiter.reserve(BUCKET), reported(19, 60))
    # Written two seconds ago, when the last one of that window was sent.
    await limiter.report(slow, reported(0, 1))
    clock.now += 5

    await limiter.reserve(BUCKET)
    window = limiter.window(BUCKET)
    assert window is not None
    assert (window.used, window.left, window.ends_before) == (1, 18, clock.now + 55)


async def test_a_refusal_closes_its_bucket_and_no_other() -> None:
    limiter = LocalLimiter(Clock())
    await limiter.report(await limiter.reserve(BUCKET), reported(15, 60))
    await limiter.report(await limiter.reserve(BUCKET), refused(17))

    assert await read_wait(limiter) == 17
    for field, other in (("scope", "else"), ("credential", "x"), ("endpoint", "POST /v1/projects")):
        names = {"credential": BUCKET.credential, "scope": "acme", "endpoint": BUCKET.endpoint}
        await limiter.reserve(Bucket(**{**names, field: other}, is_contended=True))


@pytest.mark.parametrize(
    "answer",
    [
        RateLimit(None, None, None),
        RateLimit(20, 0, None),
        RateLimit(20, None, timedelta(seconds=9)),
        RateLimit(None, 0, timedelta(seconds=9)),
    ],
)
async def test_an_incomplete_report_closes_no_bucket(answer: RateLimit) -> None:
    limiter = LocalLimiter(Clock())
    await limiter.report(await limiter.reserve(BUCKET), answer)
    await limiter.reserve(BUCKET)


async def test_windows_that_are_over_are_forgotten() -> None:
    limiter = LocalLimiter(clock := Clock())
    for number in range(5000):
        bucket = Bucket("supabase:0123abcd", f"ref{number}", "GET", is_contended=False)
        await limiter.report(await limiter.reserve(bucket), reported(10, 60))
        clock.now += 1

    assert len(limiter._windows) <= 1000
