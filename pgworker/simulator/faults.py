"""Faults that a test orders: what goes wrong, with which request, how often.

A fault waits for its request; it isn't random, so that a test that fails fails again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from pgworker.simulator.replies import Reply

# What the gateway in front of the API says when it has no better words.
GATEWAY_ERROR = "error code: {status}"


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer so, whatever the operation would have said.

    Attributes:
        body: JSON; a `str` is sent as it is (HTML, plain text). None is what the gateway says for
            5xx, and a plain message otherwise.
        after_effect: carry the operation out first: it has happened, and the caller isn't told.
    """

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    after_effect: bool = False
    kind: Literal["answer"] = "answer"


@dataclass(frozen=True, slots=True)
class Hang:
    """Wait before going on; None waits until the order is released.

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
    """Carry the operation out and send half of its JSON."""

    kind: Literal["truncated"] = "truncated"


@dataclass(frozen=True, slots=True)
class ExtraFields:
    """Add a field that nobody has heard of to every object at the top of the answer."""

    fields: Mapping[str, Any] = field(default_factory=lambda: {"x_unheard_of": {"nested": [1]}})
    kind: Literal["extra_fields"] = "extra_fields"


@dataclass(frozen=True, slots=True)
class Becomes:
    """Let the project of the request end up in a status (with `create_project`: the new one).

    The status may be any: `INIT_FAILED`, `COMING_UP` (stuck), `INACTIVE`, one that is unheard of,
    or `VANISHED` (404 from then on).
    """

    status: str
    kind: Literal["becomes"] = "becomes"


Fault = Answer | Hang | Drop | Truncated | ExtraFields | Becomes


@dataclass(frozen=True, slots=True)
class Subject:
    """What an order can look at in a request.

    Attributes:
        project: the ref in its path; for a create, the name asked for.
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
        reached: set when the first request met the fault, for a test to await.
        hits: how many did.
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
        """Let the requests that hang in it go on, and meet no more."""
        self._released.set()

    def abandon(self) -> None:
        """Let the requests that hang in it end without an effect: the simulator closes."""
        self.abandoned = True
        self._released.set()

    async def wait(self, seconds: float | None) -> None:
        """Wait until released, or for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._released.wait()
        except TimeoutError:
            pass

    def meets(self, subject: Subject, now: float) -> bool:
        """Count the request, and tell whether the fault is for it."""
        if self._is_over(now) or not self._concerns(subject):
            return False
        self._seen += 1
        late_by = self._seen - self._nth
        if late_by < 0 or late_by % self._every:
            return False
        self.hits += 1
        self.reached.set()
        return True

    def as_json(self) -> dict[str, Any]:
        """Return what a test over HTTP needs to know of it."""
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

    def _concerns(self, subject: Subject) -> bool:
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
    """The faults in order; the first that is meant for a request takes it.

    Attributes:
        operations: the names that an order may use; the application sets them.
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

        Only requests that got past the token, the rate limit and the token's scopes are counted.

        Args:
            operation: name in `pgworker.simulator.app.OPERATIONS`, or `*` for any.
            fault: what goes wrong.
            nth: the first request to meet it, of those it concerns, counted from now, from 1.
            times: how many meet it; None is no end.
            every: 3 is every third from `nth` on.
            seconds: it ends after so long on the simulator's clock.
            project: concerns this project only: its ref or name.
            query: query parameters with shell patterns, such as `{"offset": "[1-9]*"}` for
                every page but the first.
            contains: a text in the body, such as part of a statement.

        Raises:
            ValueError: there is no such operation.
        """
        if operation not in self.operations | {"*"}:
            known = ", ".join(sorted(self.operations))
            raise ValueError(f"unknown operation {operation}; there are: {known}")
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
        """Return all orders, spent ones included."""
        return list(self._orders)

    def meeting(self, subject: Subject) -> Order | None:
        """Return the order that the request meets, if any."""
        now = self._clock()
        return next((order for order in self._orders if order.meets(subject, now)), None)

    def clear(self) -> None:
        """Release every order."""
        for order in self._orders:
            order.release()

    def abandon(self) -> None:
        """End every order without an effect: the simulator closes."""
        for order in self._orders:
            order.abandon()


async def play(order: Order, carry_out: Callable[[], Awaitable[Reply]]) -> Reply | None:
    """Answer a request that met an order; None drops its connection.

    `Becomes` needs the projects and is played by who carries the operation out.
    """
    match order.fault:
        case Answer() as answer:
            if answer.after_effect:
                await carry_out()
            return _as_reply(answer)
        case Drop(after_effect=after_effect):
            if after_effect:
                await carry_out()
            return None
        case Hang(seconds=seconds, after_effect=True):
            reply = await carry_out()
            await order.wait(seconds)
            return reply
        case Hang(seconds=seconds):
            await order.wait(seconds)
            return None if order.abandoned else await carry_out()
        case Truncated():
            return replace(await carry_out(), truncated=True)
        case ExtraFields(fields=fields):
            reply = await carry_out()
            return replace(reply, body=_with_extra(reply.body, fields))
        case Becomes():
            return await carry_out()


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
