"""The answer of an operation, before it is an HTTP response."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pgworker.errors import PgworkerError


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        body: JSON, or a `str` that is sent unchanged; None is an empty body.
        truncated: send only the first half of the body, with the length of that half.
    """

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str | None = None
    truncated: bool = False


class Refused(PgworkerError):
    """The operation refuses the request; nothing happened.

    Attributes:
        reply: the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(status, {"message": message})
