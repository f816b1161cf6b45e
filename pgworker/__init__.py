"""pgworker: PostgreSQL-native tenant provisioning. Insert a client, get a working backend."""

from pgworker.schema_sync import ClientConfig, SyncReport, apply_latest_schema
from pgworker.version import __version__

__all__ = ["ClientConfig", "SyncReport", "__version__", "apply_latest_schema"]
