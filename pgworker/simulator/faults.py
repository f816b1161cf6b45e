"""Faults that a test orders: what goes wrong, with which request, how often.

A fault waits for its request. It isn't random, so that a failing test fails again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from pgworker.simulator.replies import Reply

# What the gateway before the API answers for an error without a message.
GATEWAY_ERROR = "error code: {status}"


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer this instead of the operation's own answer.

    Attributes:
        body: JSON; a `str` is sent unchanged (HTML, plain text). None stands for the gateway's
            answer for 5xx, and for a plain message otherwise.
        after_effect: run the operation first: it has happened, but the answer doesn't say so.
    """

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    after_effect: bool = False
    kind: Literal["answer"] = "answer"


@dataclass(frozen=True, slots=True)
class Hang:
    """Delay the answer; None waits until the order is released.

    Attributes:
        after_effect: the operation happens before the wait instead of after it.
    """

    seconds: float | None = None
    after_effect: bool = False
    kind: Literal["hang"] = "hang"


@dataclass(frozen=True, slots=True)
class Drop:
    """Reset the connection instead of answering."""

    after_effect: bool = False
    kind: Literal["drop"] = "drop"


@dataclass(frozen=True, slots=True)
class Truncated:
    """Run the operation and send half of its JSON."""

    kind: Literal["truncated"] = "truncated"


@dataclass(frozen=True, slots=True)
class ExtraFields:
    """Add an unknown field to every object at the top level of the answer."""

    fields: Mapping[str, Any] = field(default_factory=lambda: {"x_unknown": {"nested": [1]}})
    kind: Literal["extra_fields"] = "extra_fields"


@dataclass(frozen=True, slots=True)
class Becomes:
    """Change the status of the request's project; with `create_project`, of the new one.

    Any status is possible: `INIT_FAILED`, `COMING_UP` (stuck), `INACTIVE`, an unknown one, or
    `VANISHED` (404 from then on).
    """

    status: str
    kind: Literal["becomes"] = "becomes"


Fault = Answer | Hang | Drop | Truncated | ExtraFields | Becomes


@dataclass(frozen=True, slots=True)
class Subject:
    """What an order can compare of a request.

    Attributes:
        project: the ref in its path; for a create, the requested name.
        project_name: the name of that project.
        body: the text of the body.
    """

    operation: str
    project: str | None
    project_name: str | None
    query: Mapping[str, str]
    body: str


class Order:
    """One ordered fault.

    Attributes:
        reached: set when the first request has met the fault.
        hits: how many requests have met it.
    """

    def __init__(
        self,
        number: int,
        fault: Fault,
        *,
        operation: str,
        nth: int,
        times: int | None,
        every: int,
        until: float | None,
        project: str | None,
        query: Mapping[str, str],
        contains: str | None,
    ) -> None:
        self.number = number
        self.fault = fault
        self.operation = operation
        self.reached = asyncio.Event()
        self.hits = 0
        self._nth = nth
        self._times = times
        self._every = every
        self._until = until
        self._project = project
        self._query = query
        self._contains = contains
        self._seen = 0
        self._released = asyncio.Event()
        self.abandoned = False

    def release(self) -> None:
        """Resume the requests that wait, and let no more requests meet the fault."""
        self._released.set()

    def abandon(self) -> None:
        """End the requests that wait without an effect, as the simulator closes."""
        self.abandoned = True
        self._released.set()

    async def wait(self, seconds: float | None) -> None:
        """Wait until released, but at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._released.wait()
        except TimeoutError:
            pass

    def match(self, subject: Subject, now: float) -> bool:
        """Count the request, and return whether it meets the fault."""
        if self._is_over(now) or not self._applies_to(subject):
            return False
        self._seen += 1
        late_by = self._seen - self._nth
        if late_by < 0 or late_by % self._every:
            return False
        self.hits += 1
        self.reached.set()
        return True

    def as_json(self) -> dict[str, Any]:
        """Return it as a test over HTTP sees it."""
        return {
            "id": self.number,
            "operation": self.operation,
            "kind": self.fault.kind,
            "hits": self.hits,
        }

    def _is_over(self, now: float) -> bool:
        spent = self._times is not None and self.hits >= self._times
        late = self._until is not None and now >= self._until
        return spent or late or self._released.is_set()

    def _applies_to(self, subject: Subject) -> bool:
        return (
            self.operation in ("*", subject.operation)
            and self._project in (None, subject.project, subject.project_name)
            and all(
                fnmatchcase(subject.query.get(name, ""), pattern)
                for name, pattern in self._query.items()
            )
            and (self._contains is None or self._contains in subject.body)
        )


class Faults:
    """The ordered faults; a request meets the first one that matches it.

    Attributes:
        operations: the valid names of operations; the application sets them.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.operations: frozenset[str] = frozenset()
        self._clock = clock
        self._orders: list[Order] = []
        self._numbers = itertools.count(1)

    def order(
        self,
        *,
        operation: str,
        fault: Fault,
        nth: int = 1,
        times: int | None = 1,
        every: int = 1,
        seconds: float | None = None,
        project: str | None = None,
        query: Mapping[str, str] | None = None,
        contains: str | None = None,
    ) -> Order:
        """Order a fault.

        Only requests with a valid token and scope that the rate limit allows are counted.

        Args:
            operation: name in `pgworker.simulator.app.OPERATIONS`, or `*` for any.
            fault: what goes wrong.
            nth: the first request to meet it, of those that match, counted from now, from 1.
            times: how many requests meet it; None: without end.
            every: 3 stands for every third request from `nth` on.
            seconds: how long it lasts on the simulator's clock.
            project: only requests for this project, by ref or name.
            query: only requests with these query parameters, as shell patterns:
                `{"offset": "[1-9]*"}` stands for every page but the first.
            contains: only requests with this text in the body, such as part of a statement.

        Raises:
            ValueError: there is no such operation.
        """
        if operation not in self.operations | {"*"}:
            known = ", ".join(sorted(self.operations))
            raise ValueError(f"unknown operation {operation}; known are: {known}")
        order = Order(
            next(self._numbers),
            fault,
            operation=operation,
            nth=nth,
            times=times,
            every=every,
            until=None if seconds is None else self._clock() + seconds,
            project=project,
            query=query or {},
            contains=contains,
        )
        self._orders.append(order)
        return order

    def orders(self) -> list[Order]:
        """Return all orders, also those that are over."""
        return list(self._orders)

    def match(self, subject: Subject) -> Order | None:
        """Return the order that the request meets, if any."""
        now = self._clock()
        return next((order for order in self._orders if order.match(subject, now)), None)

    def clear(self) -> None:
        """Release every order."""
        for order in self._orders:
            order.release()

    def abandon(self) -> None:
        """End every order without an effect, as the simulator closes."""
        for order in self._orders:
            order.abandon()


async def play(order: Order, run_operation: Callable[[], Awaitable[Reply]]) -> Reply | None:
    """Answer a request that met an order; None drops its connection.

    `Becomes` needs the projects, so `run_operation` applies it.
    """
    match order.fault:
        case Answer() as answer:
            if answer.after_effect:
                await run_operation()
            return _as_reply(answer)
        case Drop(after_effect=after_effect):
            if after_effect:
                await run_operation()
            return None
        case Hang(seconds=seconds, after_effect=True):
            reply = await run_operation()
            await order.wait(seconds)
            return reply
        case Hang(seconds=seconds):
            await order.wait(seconds)
            return None if order.abandoned else await run_operation()
        case Truncated():
            return replace(await run_operation(), truncated=True)
        case ExtraFields(fields=fields):
            reply = await run_operation()
            return replace(reply, body=_with_extra(reply.body, fields))
        case Becomes():
            return await run_operation()


def _as_reply(answer: Answer) -> Reply:
    body = answer.body
    if body is None:
        gateway = answer.status >= 500
        message = {"message": f"ordered fault: {answer.status}"}
        body = GATEWAY_ERROR.format(status=answer.status) if gateway else message
    return Reply(answer.status, body, dict(answer.headers), answer.content_type)


def _with_extra(body: Any, fields: Mapping[str, Any]) -> Any:
    if isinstance(body, dict):
        return {**body, **fields}
    if isinstance(body, list):
        return [_with_extra(item, fields) for item in body]
    return body
