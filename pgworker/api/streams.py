"""Server-Sent Events (WHATWG HTML, 9.2)."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from pgworker.api.shapes import ClientDetail, Transition
from pgworker.errors import PgworkerError
from pgworker.status.progress import KEEP_ALIVE
from pgworker.telemetry import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from pgworker.status.events import Watching
    from pgworker.status.progress import News

# How long a browser waits before it comes back.
RECONNECT_MILLISECONDS = 2000
EVENT_STREAM = "text/event-stream"

# Keeps the connection from looking dead.
QUIET = format_sse_event(comment="")
# No more than a sign: whoever reads it looks again.
CHANGED = format_sse_event(event="changed", data_str="{}", retry=RECONNECT_MILLISECONDS)

log = get_logger()

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A stream of events",
        "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
    }
}


async def stream(messages: AsyncGenerator[bytes]) -> StreamingResponse:
    """Return an answer that goes on; an error before its first message is raised here."""
    first = await anext(messages, b"")

    async def all_of_them() -> AsyncIterator[bytes]:
        async with aclosing(messages):
            yield first
            try:
                async for each in messages:
                    yield each
            except PgworkerError as error:
                # The answer has begun, so it can only end; whoever reads it comes back.
                log.warning("stream_broke_off", error=str(error))

    # A proxy that buffers would keep the news to itself.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(all_of_them(), media_type=EVENT_STREAM, headers=headers)


def message(event: str, body: BaseModel, number: int) -> bytes:
    """Return one event."""
    return format_sse_event(
        data_str=body.model_dump_json(),
        event=event,
        id=str(number),
        retry=RECONNECT_MILLISECONDS,
    )


async def client_messages(
    news: AsyncGenerator[News | None], *, follow: bool
) -> AsyncGenerator[bytes]:
    """Turn news into `transition` and `progress` events, up to an `end` when nothing more comes.

    Their ids are those of transitions: from any of them a stream can be taken up.
    """
    async with aclosing(news):
        async for each in news:
            if each is None:
                yield QUIET
                continue
            yield _told(each)
            if each.progress.is_final and each.is_all and not follow:
                yield message("end", ClientDetail.from_progress(each.progress), each.told)
                return


def _told(news: News) -> bytes:
    parts = [
        message("transition", Transition.model_validate(row), row.id) for row in news.transitions
    ]
    detail = ClientDetail.from_progress(news.progress)
    return b"".join([*parts, message("progress", detail, news.told)])


async def change_messages(watching: Watching) -> AsyncGenerator[bytes]:
    """Say `changed` at the beginning and whenever something happened to any client."""
    async with watching.stream() as each:
        is_news = True
        while not each.is_closed:
            each.take()
            yield CHANGED if is_news else QUIET
            is_news = await each.wait(KEEP_ALIVE)
