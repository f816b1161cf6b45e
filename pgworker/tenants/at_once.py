"""Two things that don't depend on each other, done at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable

First = TypeVar("First")
Second = TypeVar("Second")


async def at_once(first: Awaitable[First], second: Awaitable[Second]) -> tuple[First, Second]:
    """Do both, each to its end; return their results, or raise an error: rather the first's.

    Not a `TaskGroup`: callers know errors, not groups of them; and neither is stopped in the
    middle of a statement because the other one failed.
    """
    results = await asyncio.gather(first, second, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("tuple[First, Second]", tuple(results))
