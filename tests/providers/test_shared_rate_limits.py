"""The rate limit that all processes share: real PostgreSQL, and a server that really counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pgworker.db.pool import open_pool
from pgworker.errors import DatabaseUnreachable, Throttled
from pgworker.providers.rate_limits import Bucket, RateLimit
from pgworker.providers.shared_rate_limits import SharedLimiter
from pgworker.simulator.limits import RateLimits
from tests.support.polling import wait_for_lock
from tests.support.workers import within

if TYPE_CHECKING:
    from pgworker.db.pool import Pool

CREATES = Bucket("supabase:0123abcd", "acme", "POST /v1/projects", is_contended=True)
QUERIES = Bucket("supabase:0123abcd", "abc", "POST /v1/projects/{scope}/query", is_contended=False)
KEY = "'supabase:0123abcd', 'acme', 'POST /v1/projects'"
# How many requests a bucket allows while its limit is unknown.
BEFORE_FIRST_RESPONSE = 10
NO_REPORT = "null, null, null, null, null"


def reported(limit: int, remaining: int, reset: float = 60) -> RateLimit:
    return RateLimit(limit, remaining, timedelta(seconds=reset))


def refused(reset: float, limit: int | None = None) -> RateLimit:
    return RateLimit(limit, 0, timedelta(seconds=reset), is_refusal=True)


@dataclass
class Workers:
    """As many processes as a test wants, each with a pool and a limiter of its own."""

    dsn: str
    stack: AsyncExitStack
    pool: Pool

    async def another(self, *, connections: int = 2) -> SharedLimiter:
        pool = await self.stack.enter_async_context(open_pool(self.dsn, max_size=connections))
        return SharedLimiter(pool)

    async def row(self, bucket: Bucket = CREATES) -> dict[str, Any] | None:
        row = await self.pool.fetchrow(
            "select * from pgworker.rate_limits where scope = $1 and endpoint = $2",
            bucket.scope,
            bucket.endpoint,
        )
        return None if row is None else dict(row)

    async def let_time_pass(self, seconds: float) -> None:
        await self.pool.execute(
            "update pgworker.rate_limits set opened_at = opened_at - $1 * interval '1 s',"
            " resets_at = resets_at - $1 * interval '1 s'",
            seconds,
        )

    async def report(self, answer: RateLimit, bucket: Bucket = CREATES) -> None:
        """Report this response, as any process would."""
        assert answer.reset is not None
        used = None if answer.limit is None else answer.limit - (answer.remaining or 0)
        await self.pool.execute(
            "select pgworker.report_limit($1, $2, $3, null, $4, $5,"
            " now() + $6 - interval '1 s', now() + $6)",
            *(bucket.credential, bucket.scope, bucket.endpoint),
            *(answer.limit, None if answer.is_refusal else used, answer.reset),
        )

    async def reserve_sql(self, wanted: int, *, keep: bool = True) -> dict[str, Any]:
        row = await self.pool.fetchrow(
            f"select * from pgworker.reserve_requests({KEY}, $1, $2, {NO_REPORT})", wanted, keep
        )
        assert row is not None
        return dict(row)


@pytest.fixture
async def workers(database: str) -> AsyncIterator[Workers]:
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_pool(database, max_size=20))
        yield Workers(database, stack, pool)


async def is_granted(limiter: SharedLimiter, bucket: Bucket = CREATES) -> bool:
    try:
        await limiter.reserve(bucket)
    except Throttled:
        return False
    return True


# -- never more than the server accepts -------------------------------------------------------


async def test_a_window_grants_exactly_its_limit_however_many_ask_at_once(
    workers: Workers,
) -> None:
    await workers.report(reported(50, 50))
    for _ in range(3):
        grants = await asyncio.gather(*(workers.reserve_sql(1 + n % 3) for n in range(120)))
        assert sum(grant["granted"] for grant in grants) == 50
        assert all(0 <= grant["granted"] <= 3 for grant in grants)
        await workers.let_time_pass(61)


async def test_ten_processes_without_a_report_find_the_limit_and_are_never_refused(
    workers: Workers,
) -> None:
    loop = asyncio.get_running_loop()
    server = RateLimits(limit=30, window_seconds=60, clock=loop.time)
    answers = []
    first_requests_sent = asyncio.Event()

    async def job(limiter: SharedLimiter) -> bool:
        try:
            reservation = await limiter.reserve(CREATES)
        except Throttled:
            return False
        grant = server.take(("user", "acme", "create_project"))
        answers.append(grant.allowed)
        # The worst case: no response arrives before all requests that need none have been sent.
        if len(answers) == BEFORE_FIRST_RESPONSE:
            first_requests_sent.set()
        await first_requests_sent.wait()
        await limiter.report(
            reservation,
            RateLimit(grant.limit, grant.remaining, timedelta(seconds=grant.reset_seconds)),
        )
        return True

    processes = [await workers.another() for _ in range(10)]
    sent = await within(asyncio.gather(*(job(limiter) for limiter in processes * 20)))

    # All requests within the limit were sent, and none above it.
    assert answers == [True] * 30
    assert sum(sent) == 30


async def test_before_the_first_response_only_a_few_requests_are_granted(workers: Workers) -> None:
    grant = await workers.reserve_sql(200)
    assert (grant["granted"], grant["end_is_known"]) == (BEFORE_FIRST_RESPONSE, False)
    assert timedelta(0) < grant["wait"] <= timedelta(seconds=0.25)

    # Their responses were lost with their process: a few others may try after a while.
    await workers.let_time_pass(6)
    assert (await workers.reserve_sql(200))["granted"] == 10


async def test_reservations_of_a_dead_process_end_with_the_window(
    workers: Workers,
) -> None:
    await workers.report(reported(40, 40, 60))
    assert (await workers.reserve_sql(100))["granted"] == 40
    assert (await workers.reserve_sql(1))["granted"] == 0
    await workers.let_time_pass(61)
    assert (await workers.reserve_sql(100))["granted"] == 40


async def test_a_new_window_ends_when_its_first_response_says_so(workers: Workers) -> None:
    await workers.report(reported(20, 20, 60))
    await workers.let_time_pass(61)
    limiter = await workers.another()

    reservation = await limiter.reserve(CREATES)
    row = await workers.row()
    assert row is not None
    assert not reservation.end_is_known
    assert not row["end_is_known"]
    assert row["resets_at"] - row["opened_at"] == timedelta(seconds=60)

    await limiter.report(reservation, reported(20, 19, 7))
    row = await workers.row()
    assert row is not None
    assert row["end_is_known"]
    # Seven seconds and the time under way, not the assumed minute.
    assert timedelta(seconds=6) < row["resets_at"] - row["opened_at"] < timedelta(seconds=50)


# -- what a response reports ------------------------------------------------------------------

T, F = True, False
OPENED = "timestamptz '2026-01-01 00:00:00Z'"


@pytest.mark.parametrize(
    ("what", "row", "now", "opened_at", "answer", "result"),
    [
        # row: ceiling, end, end_is_known, used; answer: ceiling, used, ends after and before;
        # result: ceiling, end, end_is_known, used, is another window. Seconds from OPENED.
        ("the first of all", (None, 5, F, 10), 1, 0, (20, 3, 58, 60), (20, 61, T, 10, F)),
        ("an end guessed late", (20, 60, F, 4), 1, 0, (20, 2, 5, 7), (20, 8, T, 4, F)),
        ("an end guessed early", (20, 10, F, 4), 1, 0, (20, 4, 58, 60), (20, 61, T, 4, F)),
        ("guessed a bit early", (20, 60, F, 4), 1, 0, (20, 4, 58.5, 60), (20, 61, T, 4, F)),
        ("others send as well", (20, 60, T, 4), 1, 0, (20, 15, 58, 59), (20, 60, T, 15, F)),
        ("ours are under way", (20, 60, T, 9), 1, 0, (20, 5, 58, 59), (20, 60, T, 9, F)),
        ("the next window", (20, 60, T, 20), 59, 0, (20, 1, 58, 60), (20, 119, T, 1, T)),
        ("a slow one, same window", (20, 60, T, 9), 20, 0, (20, 5, 39, 60), (20, 60, T, 9, F)),
        ("a window that is over", (20, 60, F, 2), 1, -60, (20, 20, -4, 1), (20, 60, F, 2, F)),
        ("of ours, by its end", (20, 60, T, 2), 1, -9, (20, 7, 57, 59), (20, 60, T, 7, F)),
        ("a refusal", (20, 60, T, 4), 1, 0, (20, None, 58, 59), (20, 60, T, 20, F)),
        ("a refusal for longer", (20, 10, T, 4), 1, 0, (None, None, 29, 30), (20, 31, T, 20, T)),
        ("the first refusal", (None, 5, F, 3), 1, 0, (None, None, 29, 30), (None, 31, T, 10, F)),
        ("a higher limit", (20, 60, T, 20), 1, 0, (120, 20, 58, 59), (120, 60, T, 20, F)),
        ("a lower limit", (120, 60, T, 20), 1, 0, (10, 20, 58, 59), (10, 60, T, 20, F)),
    ],
)  # fmt: skip
async def test_a_response_corrects_the_bucket(
    workers: Workers,
    what: str,
    row: tuple[Any, ...],
    now: int,
    opened_at: int,
    answer: tuple[Any, ...],
    result: tuple[Any, ...],
) -> None:
    ceiling, end, end_is_known, used = row
    known = await workers.pool.fetchrow(
        f"with known as (select row({KEY}, $1::int, null, {OPENED},"
        f" {OPENED} + $2 * interval '1 s', $3::bool, $4::int, 0)::pgworker.rate_limits as bucket),"
        f" corrected as (select pgworker.apply_response(bucket, {OPENED} + $5 * interval '1 s',"
        f" {OPENED} + $6 * interval '1 s', $7, $8, {OPENED} + $9 * interval '1 s',"
        f" {OPENED} + $10 * interval '1 s')"
        " as bucket from known)"
        f" select (bucket).ceiling, extract(epoch from (bucket).resets_at - {OPENED})::int,"
        f" (bucket).end_is_known, (bucket).used, (bucket).opened_at <> {OPENED} from corrected",
        *(ceiling, float(end), end_is_known, used, float(now), float(opened_at)),
        *(answer[0], answer[1], float(now + answer[2]), float(now + answer[3])),
    )
    assert known is not None
    assert tuple(known) == result, what


async def test_requests_of_others_with_the_same_token_are_not_granted_again(
    workers: Workers,
) -> None:
    limiter = await workers.another()
    reservation = await limiter.reserve(CREATES)
    # A dashboard has sent seventeen of twenty.
    await limiter.report(reservation, reported(20, 2, 60))

    assert [await is_granted(limiter) for _ in range(3)] == [True, True, False]


async def test_a_later_report_is_sent_with_the_next_reservation(workers: Workers) -> None:
    limiter = await workers.another()
    await limiter.report(await limiter.reserve(CREATES), reported(20, 19, 60))
    await limiter.report(await limiter.reserve(CREATES), reported(20, 1, 60))
    row = await workers.row()
    assert row is not None
    assert row["used"] == 2, "the report had a statement of its own"

    assert [await is_granted(limiter) for _ in range(2)] == [True, False]


async def test_a_refusal_closes_the_bucket_for_every_process_at_once(workers: Workers) -> None:
    one, other = await workers.another(), await workers.another()
    await one.report(await one.reserve(CREATES), reported(120, 119, 60))
    reservation = await other.reserve(CREATES)
    await one.report(reservation, refused(170))

    with pytest.raises(Throttled) as shut:
        await other.reserve(CREATES)
    assert 150 < shut.value.retry_after.total_seconds() < 200
    assert await is_granted(other, replace(CREATES, scope="another"))


async def test_the_first_response_of_a_window_is_reported_once_by_each_process(
    workers: Workers,
) -> None:
    limiter = await workers.another()
    reservations = [await limiter.reserve(CREATES) for _ in range(5)]
    await limiter.report(reservations[0], reported(20, 19, 60))
    await workers.pool.execute("delete from pgworker.rate_limits")
    for reservation in reservations[1:]:
        await limiter.report(reservation, reported(20, 15, 60))

    assert await workers.row() is None


# -- refused callers --------------------------------------------------------------------------


async def test_refused_callers_come_back_as_fast_as_they_can_be_served(workers: Workers) -> None:
    await workers.report(reported(20, 20, 60))
    few = await workers.reserve_sql(25)
    many = await workers.reserve_sql(95)

    assert (few["granted"], many["granted"]) == (20, 0)
    for grant in (few, many):
        assert timedelta(seconds=55) < grant["wait"] <= timedelta(seconds=60)
    # Five of twenty: a quarter of a window. A hundred: five windows.
    assert few["spread"].total_seconds() == pytest.approx(15, abs=0.1)
    assert many["spread"].total_seconds() == pytest.approx(300, abs=2)


async def test_the_jobs_of_one_process_wait_for_different_times(workers: Workers) -> None:
    await workers.report(refused(300, limit=20))
    limiter = await workers.another()
    waits = set()
    for _ in range(20):
        with pytest.raises(Throttled) as caught:
            await limiter.reserve(CREATES)
        waits.add(caught.value.retry_after)

    assert len(waits) == 20
    assert min(waits) > timedelta(seconds=250)


async def test_a_wait_of_less_than_a_second_happens_in_place(workers: Workers) -> None:
    await workers.report(reported(1000, 1000, 1))
    await workers.reserve_sql(1000)
    limiter = await workers.another()
    await workers.let_time_pass(0.5)

    assert await within(is_granted(limiter))


# -- what it costs ----------------------------------------------------------------------------


@asynccontextmanager
async def locked(workers: Workers) -> AsyncIterator[None]:
    """Lock the bucket's row, so that all callers must wait."""
    async with workers.pool.acquire() as connection, connection.transaction():
        await connection.execute("select 1 from pgworker.rate_limits for update")
        yield


async def test_the_callers_of_one_process_share_one_statement(
    workers: Workers,
) -> None:
    await workers.report(reported(20, 20))
    limiter = await workers.another(connections=8)
    async with locked(workers):
        callers = [asyncio.create_task(is_granted(limiter)) for _ in range(25)]
        assert await wait_for_lock(workers.pool) == 1

    granted = await within(asyncio.gather(*callers))
    assert granted == [True] * 20 + [False] * 5


async def test_a_cancelled_caller_does_not_block_the_others(workers: Workers) -> None:
    await workers.report(reported(20, 20))
    limiter = await workers.another(connections=8)
    async with locked(workers):
        asking, *others = [asyncio.create_task(is_granted(limiter)) for _ in range(5)]
        await wait_for_lock(workers.pool)
        asking.cancel()
        others.pop(1).cancel()

    assert await within(asyncio.gather(*others)) == [True] * 3


async def test_a_half_free_bucket_of_a_project_costs_no_statement_and_no_row(
    workers: Workers,
) -> None:
    limiter = await workers.another()
    await limiter.report(await limiter.reserve(QUERIES), reported(20, 19))
    assert await workers.row(QUERIES) is None
    await limiter._pool._connections.close()

    for _ in range(9):
        assert await is_granted(limiter, QUERIES)
    with pytest.raises(DatabaseUnreachable):
        await limiter.reserve(QUERIES)


async def test_a_projects_bucket_that_runs_low_is_shared_like_the_others(
    workers: Workers,
) -> None:
    one, other = await workers.another(), await workers.another()
    await one.report(await one.reserve(QUERIES), reported(20, 3))

    assert [await is_granted(one, QUERIES) for _ in range(2)] == [True, True]
    assert [await is_granted(other, QUERIES) for _ in range(2)] == [True, False]


async def test_an_update_touches_no_index_and_waits_for_no_disk(workers: Workers) -> None:
    await workers.report(reported(1000, 1000))
    take = f"select * from pgworker.reserve_requests({KEY}, 1, true, {NO_REPORT})"
    async with workers.pool.acquire() as connection:
        before = await connection.fetchval("show synchronous_commit")
        async with connection.transaction():
            for _ in range(15):
                await connection.execute(take)
            counted = await connection.fetchrow(
                "select n_tup_upd, n_tup_hot_upd from pg_stat_xact_user_tables"
                " where relname = 'rate_limits'"
            )
            during = await connection.fetchval("show synchronous_commit")
        after = await connection.fetchval("show synchronous_commit")

    assert counted is not None
    assert counted["n_tup_hot_upd"] == counted["n_tup_upd"] >= 15
    assert during == "off"
    assert after == before


async def test_buckets_unused_for_a_day_are_deleted_when_new_ones_are_made(
    workers: Workers,
) -> None:
    await workers.pool.execute(
        "insert into pgworker.rate_limits (credential, scope, endpoint, opened_at, resets_at)"
        " select 'c', 'old ' || n, 'e', now(), now() - interval '25 hours'"
        " from generate_series(1, 150) n"
        " union all select 'c', 'young', 'e', now(), now() - interval '23 hours'"
    )
    count = "select count(*) from pgworker.rate_limits where scope <> 'acme'"

    await workers.reserve_sql(1)
    assert await workers.pool.fetchval(count) == 51, "the most that one statement deletes"
    await workers.reserve_sql(1)
    assert await workers.pool.fetchval(count) == 51, "an existing bucket deletes none"
    await workers.report(reported(20, 19), replace(CREATES, scope="acme too"))
    assert await workers.pool.fetchval(f"{count} and scope like 'old%'") == 0
    assert await workers.pool.fetchval("select 1 from pgworker.rate_limits where scope = 'young'")


# -- when the database is unreachable ---------------------------------------------------------


async def test_without_the_database_nothing_is_sent_and_every_caller_gets_the_error(
    workers: Workers,
) -> None:
    limiter = await workers.another()
    await limiter._pool._connections.close()
    outcomes = await within(
        asyncio.gather(*(limiter.reserve(CREATES) for _ in range(5)), return_exceptions=True)
    )
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnreachable] * 5


async def test_a_response_is_not_lost_when_the_database_is_unreachable(workers: Workers) -> None:
    limiter = await workers.another()
    reservation = await limiter.reserve(CREATES)
    await limiter._pool._connections.close()
    await limiter.report(reservation, reported(20, 19))
    await limiter.report(reservation, refused(5))
