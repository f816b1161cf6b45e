"""pgworker: PostgreSQL-native tenant provisioning. Insert a client, get a working backend.

Public are the names in `__all__` and those of two more modules: `pgworker.workflow`, for phases of
your own (docs/phases.md), and `pgworker.schema_sync`, for one tenant's schema without a worker
(docs/schema-sync.md). Everything else may change with any release.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from pgworker.models import Scope
from pgworker.schema_sync import ClientConfig, SyncReport, apply_latest_schema
from pgworker.version import __version__

if TYPE_CHECKING:
    from pgworker.api import Principal, lifespan, router

__all__ = [
    "ClientConfig",
    "Principal",
    "Scope",
    "SyncReport",
    "__version__",
    "apply_latest_schema",
    "lifespan",
    "router",
]

# Imported only when named: they need the extra `http`.
_OF_THE_API = frozenset({"Principal", "lifespan", "router"})


def __getattr__(name: str) -> object:
    if name not in _OF_THE_API:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module("pgworker.api"), name)
