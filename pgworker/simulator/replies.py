"""What an operation answers, before it becomes bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pgworker.errors import PgworkerError


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        body: JSON when it isn't a `str`; a `str` is sent as it is; None is an empty body.
        truncated: send the first half of the body only, with a length that fits it.
    """

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str | None = None
    truncated: bool = False


class Refused(PgworkerError):
    """The operation refuses the request; nothing happened.

    Attributes:
        reply: what is answered.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(status, {"message": message})
