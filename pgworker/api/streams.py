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

    from pgworker.status.events import EventFeed
    from pgworker.status.progress import News

# How long a browser waits before it reconnects.
RECONNECT_MILLISECONDS = 2000
EVENT_STREAM = "text/event-stream"

# A comment, which no reader sees, so that nothing in between takes the connection for dead.
KEEP_ALIVE_COMMENT = format_sse_event(comment="")
# Without content: the reader then fetches the state again, with its own scope.
CHANGED = format_sse_event(event="changed", data_str="{}", retry=RECONNECT_MILLISECONDS)

log = get_logger()

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A stream of events",
        "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
    }
}


async def make_stream_response(messages: AsyncGenerator[bytes]) -> StreamingResponse:
    """Return a response that lasts as long as there are messages.

    The first message is awaited here, so that an error before it gets a status code of its own.

    Raises:
        PgworkerError: whatever the messages raise before the first one.
    """
    first = await anext(messages, b"")

    async def send_all() -> AsyncIterator[bytes]:
        async with aclosing(messages):
            yield first
            try:
                async for each in messages:
                    yield each
            except PgworkerError as error:
                # The status code has been sent: all we can do is end. The reader reconnects.
                log.warning("stream_failed", error=str(error))

    # X-Accel-Buffering: nginx would keep the events until its buffer is full.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(send_all(), media_type=EVENT_STREAM, headers=headers)


def format_event(event: str, body: BaseModel, number: int) -> bytes:
    """Return one event.

    Args:
        event: its name, by which a reader knows what the body is.
        body: sent as JSON, in one line.
        number: the event's id. A reader that reconnects names the last one that it got.
    """
    return format_sse_event(
        data_str=body.model_dump_json(),
        event=event,
        id=str(number),
        retry=RECONNECT_MILLISECONDS,
    )


async def stream_client(
    news: AsyncGenerator[News | None], *, follow: bool
) -> AsyncGenerator[bytes]:
    """Yield news as `transition` and `progress` events, and `end` when nothing more comes.

    Their ids are those of transitions: a stream can be resumed from any of them.

    Args:
        news: of one client; None keeps the connection alive.
        follow: don't end, even when nothing more happens by itself.
    """
    async with aclosing(news):
        async for each in news:
            if each is None:
                yield KEEP_ALIVE_COMMENT
                continue
            yield _format_news(each)
            if each.progress.is_final and each.is_complete and not follow:
                detail = ClientDetail.from_progress(each.progress)
                yield format_event("end", detail, each.last_event_id)
                return


def _format_news(news: News) -> bytes:
    """Return the transitions, and behind them the progress to which they led."""
    transitions = [
        format_event("transition", Transition.model_validate(row), row.id)
        for row in news.transitions
    ]
    detail = ClientDetail.from_progress(news.progress)
    return b"".join([*transitions, format_event("progress", detail, news.last_event_id)])


async def stream_changes(feed: EventFeed) -> AsyncGenerator[bytes]:
    """Yield `changed` at the beginning, and whenever something happened to any client."""
    async with feed.stream() as each:
        has_news = True
        while not each.is_closed:
            each.take()
            yield CHANGED if has_news else KEEP_ALIVE_COMMENT
            has_news = await each.wait(KEEP_ALIVE)
