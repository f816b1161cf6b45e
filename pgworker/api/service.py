"""What the routes work with, for as long as the application runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from pgworker.api.attempts import SignInAttempts
from pgworker.api.sessions import Sessions
from pgworker.db.listen import EVENTS_CHANNEL, Listener
from pgworker.runtime.readiness import Readiness
from pgworker.status.events import EventFeed
from pgworker.status.pages import Pages
from pgworker.status.progress import ProgressReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgworker.context import Platform
    from pgworker.runtime.daemon import Daemon
    from pgworker.status.commands import Commands
    from pgworker.status.queries import StatusReader

# A working day: a person signs in once for it.
SESSION_AGE = timedelta(hours=12)


@dataclass(slots=True)
class Service:
    """The open platform, and what the HTTP side keeps beside it.

    Attributes:
        daemon: the worker of this process; None where none runs.
        sessions: cookies of people who have signed in.
        attempts: to sign in, by address.
        commands, status, pages, progress: what the routes call.
        feed: delivers events to the open streams of this process.
        readiness: what `/readyz` answers.
    """

    platform: Platform
    daemon: Daemon | None
    sessions: Sessions
    attempts: SignInAttempts
    commands: Commands
    status: StatusReader
    pages: Pages
    progress: ProgressReader
    feed: EventFeed
    readiness: Readiness

    @classmethod
    def from_platform(cls, platform: Platform, daemon: Daemon | None = None) -> Service:
        """Put a service together on an open platform.

        Raises:
            BadConfiguration: PGWORKER_ENCRYPTION_KEYS is not set.
        """
        tokens = platform.settings.api_tokens
        return cls(
            platform=platform,
            daemon=daemon,
            sessions=Sessions(platform.session_keys(), tokens, SESSION_AGE),
            attempts=SignInAttempts(),
            commands=platform.commands,
            status=platform.status,
            pages=Pages(platform.pool),
            progress=ProgressReader(platform.pool),
            feed=EventFeed(platform.pool, _make_listener(platform.listen_dsn)),
            readiness=Readiness(platform, daemon),
        )


def _make_listener(dsn: str | None) -> Callable[[Callable[[], None]], Listener] | None:
    """Return what makes the feed's listener; None where LISTEN is switched off."""
    if dsn is None:
        return None
    return lambda wake: Listener(
        dsn, wake, channel=EVENTS_CHANNEL, application_name="pgworker watch"
    )


def get_service(request: Request) -> Service:
    """Return the service of the application that serves this request.

    It is kept on the application while the lifespan runs. A route finds it by its request, because
    pgworker's routes may be part of an application that isn't ours.

    Raises:
        RuntimeError: the application has no lifespan of pgworker.
    """
    service: Service | None = getattr(request.app.state, "pgworker", None)
    if service is None:
        msg = "pgworker's routes need its lifespan: FastAPI(lifespan=pgworker.lifespan())"
        raise RuntimeError(msg)
    return service


ServiceDep = Annotated[Service, Depends(get_service)]
