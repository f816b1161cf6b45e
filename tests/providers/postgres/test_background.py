"""Tasks in the background have an owner: none is lost, and no exception is."""

from __future__ import annotations

import asyncio

from pgworker.providers.postgres.background import BackgroundTasks
from tests.support.stack import Log


async def test_closing_cancels_the_tasks_and_waits_for_their_clean_up() -> None:
    tasks = BackgroundTasks()
    started, cleaned_up = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned_up.set()

    task = tasks.start(work(), name="work")
    await started.wait()
    await tasks.aclose()

    assert task.cancelled()
    assert cleaned_up.is_set()


async def test_a_crash_is_logged_and_leaves_the_other_tasks_alone() -> None:
    tasks, log = BackgroundTasks(), Log()

    async def crash() -> None:
        raise ZeroDivisionError

    async def work() -> int:
        await asyncio.sleep(0)
        return 1

    with log.capturing():
        other = tasks.start(work(), name="other")
        tasks.start(crash(), name="crash")
        await log.wait_for("background_task_crashed")

    (entry,) = log.find("background_task_crashed")
    assert entry["task"] == "crash"
    assert isinstance(entry["exc_info"], ZeroDivisionError)
    assert await other == 1
    await tasks.aclose()
