"""The failpoints of a worker: it records each step boundary, and fails where one is armed."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

ANY = "*"
# Marks the lines of a trace that record a failpoint; the others are boundaries.
FIRED = "!"

Action = Literal["die", "freeze", "lose", "requeue"]


@dataclass(frozen=True, slots=True)
class Failpoint:
    """A fault that is armed at a step boundary, and happens once.

    Attributes:
        boundary: its name, `before …` or `after …`; `*` matches any.
        action: `die` (SIGKILL); `freeze` (SIGSTOP) for longer than the lease; `lose`: the answer
            that has just come is lost, together with its connection (only after a step);
            `requeue`: freeze while a person requeues the job with a delay. The worker then still
            believes in its lease, so that only the fencing token stops it.
        nth: which passage of the boundary, from 1, counted from when the failpoint was armed.
    """

    boundary: str
    action: Action
    nth: int = 1

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


# The failpoints of a case: for each of its workers, in the order in which they start.
FailpointPlan = tuple[tuple[Failpoint, ...], ...]


def is_possible(action: str, boundary: str) -> bool:
    """Return whether this can happen there: an answer can be lost only after a step."""
    return action != "lose" or boundary.startswith("after ")


class FailpointRegistry:
    """The armed failpoints of one worker process; each of its steps calls `hit` twice."""

    def __init__(self, trace: Path, pipe: Path) -> None:
        """Open the file that boundaries are recorded in, and the pipe that failpoints come by."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._trace = os.open(trace, flags, 0o600)
        self._pipe = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._unread = b""
        # With the number of passages that are still missing.
        self._armed: list[tuple[Failpoint, int]] = []

    def hit(self, boundary: str) -> bool:
        """Pass a boundary and fire what is armed there; return whether the answer gets lost."""
        self._record(boundary)
        self._read_pipe()
        fired: Failpoint | None = None
        left: list[tuple[Failpoint, int]] = []
        for failpoint, missing in self._armed:
            is_here = failpoint.boundary in (ANY, boundary)
            is_here = is_here and is_possible(failpoint.action, boundary)
            still_missing = missing - is_here
            if is_here and still_missing == 0 and fired is None:
                fired = failpoint
            else:
                # Another one fired here: this one does at the next passage.
                left.append((failpoint, max(still_missing, 1)))
        self._armed = left
        return fired is not None and self._fire(fired.action, boundary)

    def _fire(self, action: Action, boundary: str) -> bool:
        # Recorded first: a killed process can't do it afterwards.
        self._record(f"{FIRED}{action} {boundary}")
        if action == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if action in {"freeze", "requeue"}:
            os.kill(os.getpid(), signal.SIGSTOP)
        return action == "lose"

    def _record(self, line: str) -> None:
        os.write(self._trace, line.encode() + b"\n")

    def _read_pipe(self) -> None:
        try:
            self._unread += os.read(self._pipe, 65536)
        except BlockingIOError:
            return
        *lines, self._unread = self._unread.split(b"\n")
        armed = [Failpoint(**json.loads(line)) for line in lines]
        self._armed += [(failpoint, failpoint.nth) for failpoint in armed]
