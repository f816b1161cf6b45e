"""Two operations that don't depend on each other, at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable

First = TypeVar("First")
Second = TypeVar("Second")


async def at_once(first: Awaitable[First], second: Awaitable[Second]) -> tuple[First, Second]:
    """Run both to their ends; return their results, or raise an error, preferably the first one's.

    Not a `TaskGroup`: callers handle errors, not groups of errors, and no statement is cancelled
    because the other operation failed.
    """
    results = await asyncio.gather(first, second, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("tuple[First, Second]", tuple(results))
