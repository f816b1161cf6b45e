"""What the routes work with, for as long as the application runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from pgworker.api.auth import Sessions

if TYPE_CHECKING:
    from pgworker.queue.operations import Operations
    from pgworker.tenants.daemon import Daemon
    from pgworker.tenants.platform import Platform

SESSION_AGE = timedelta(hours=12)


@dataclass(slots=True)
class Service:
    """The open platform, and what the HTTP side keeps beside it.

    Attributes:
        daemon: the worker of this process; None where none runs.
    """

    platform: Platform
    sessions: Sessions
    daemon: Daemon | None = None

    @classmethod
    def of(cls, platform: Platform, daemon: Daemon | None = None) -> Service:
        """Put a service together on an open platform.

        Raises:
            BadConfiguration: PGWORKER_ENCRYPTION_KEYS is not set.
        """
        tokens = platform.settings.api_tokens
        return cls(platform, Sessions(platform.session_keys(), tokens, SESSION_AGE), daemon)

    @property
    def operations(self) -> Operations:
        """What people ask of the queue."""
        return self.platform.operations


def service_of(request: Request) -> Service:
    """Return the service of the application that serves this request."""
    service: Service | None = getattr(request.app.state, "pgworker", None)
    if service is None:
        msg = "pgworker's routes need its lifespan: FastAPI(lifespan=pgworker.lifespan())"
        raise RuntimeError(msg)
    return service


TheService = Annotated[Service, Depends(service_of)]
