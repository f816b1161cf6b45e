"""absurd (`absurd-sdk`): polls every quarter of a second by default; has no bulk call."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absurd_sdk import AsyncAbsurd

from bench.contender import enqueue_one_by_one, main

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping


class Absurd:
    """Settings: `concurrency`."""

    unfinished = (
        "select exists (select from absurd.t_default where state in ('pending', 'running'))"
    )

    def __init__(self, dsn: str, settings: Mapping[str, Any]) -> None:
        self._dsn = dsn
        self._app = AsyncAbsurd(dsn)
        self._settings = settings

    async def prepare(self, jobs: int) -> None:
        control = Path(sys.executable).with_name("absurdctl")
        for arguments in (["init"], ["create-queue", "default"]):
            process = await asyncio.create_subprocess_exec(
                control, *arguments, env=os.environ | {"ABSURD_DATABASE_URL": self._dsn}
            )
            assert await process.wait() == 0, f"absurdctl {arguments[0]} failed"

    async def enqueue(self, jobs: int) -> Callable[[], Awaitable[None]]:
        return await enqueue_one_by_one(self, jobs)

    async def enqueue_one(self) -> Callable[[], Awaitable[None]]:
        app = AsyncAbsurd(self._dsn)

        async def go() -> None:
            await app.spawn("noop", {}, queue="default")

        return go

    async def work(self, on_start: Callable[[], None]) -> None:
        @self._app.register_task(name="noop")
        async def noop(params: object, ctx: object) -> None:
            on_start()

        await self._app.start_worker(**self._settings)


if __name__ == "__main__":
    main(Absurd)
