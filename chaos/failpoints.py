"""What a worker does at its step boundaries: it notes them, and dies or freezes as ordered."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

ANY = "*"
FIRED = "!"

Act = Literal["die", "freeze", "lose", "usurp"]


@dataclass(frozen=True, slots=True)
class Order:
    """A fault that waits for a boundary.

    Attributes:
        boundary: its name, `before …` or `after …`; `*` is any.
        act: `die` (SIGKILL); `freeze` (SIGSTOP) for longer than its lease; `lose`: the answer that
            has just come gets lost, together with its connection (only after a step); `usurp`:
            freeze for the moment in which a person puts its job back in line, for later. It still
            believes in its lease: only the fence stops it.
        nth: which passage, counted from the order's arrival, from 1.
    """

    boundary: str
    act: Act
    nth: int = 1

    def as_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


class Gate:
    """The one place in a worker through which every step goes, before and after."""

    def __init__(self, trace: Path, orders: Path) -> None:
        """Open the file to note passages in, and the pipe that orders come through."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._trace = os.open(trace, flags, 0o600)
        self._pipe = os.open(orders, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._unread = b""
        self._orders: list[tuple[Order, int]] = []

    def passes(self, boundary: str) -> bool:
        """Pass a boundary; return whether the answer of the step gets lost."""
        self._note(boundary)
        self._read_orders()
        fired: Order | None = None
        left: list[tuple[Order, int]] = []
        for order, missing in self._orders:
            is_here = order.boundary in (ANY, boundary) and _is_possible(order.act, boundary)
            still_missing = missing - is_here
            if is_here and still_missing == 0 and fired is None:
                fired = order
            else:
                left.append((order, max(still_missing, 1)))
        self._orders = left
        return fired is not None and self._carry_out(fired.act, boundary)

    def _carry_out(self, act: Act, boundary: str) -> bool:
        # Noted first: whoever dies can't tell any more.
        self._note(f"{FIRED}{act} {boundary}")
        if act == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if act in {"freeze", "usurp"}:
            os.kill(os.getpid(), signal.SIGSTOP)
        return act == "lose"

    def _note(self, line: str) -> None:
        os.write(self._trace, line.encode() + b"\n")

    def _read_orders(self) -> None:
        try:
            self._unread += os.read(self._pipe, 65536)
        except BlockingIOError:
            return
        *lines, self._unread = self._unread.split(b"\n")
        self._orders += [(order, order.nth) for order in (Order(**json.loads(x)) for x in lines)]


def _is_possible(act: Act, boundary: str) -> bool:
    return act != "lose" or boundary.startswith("after ")
