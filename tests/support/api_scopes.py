"""The scope that each route requires, for the tests of access and of the reference."""

from __future__ import annotations

from pgworker.models import Scope

# None: no token is required.
REQUIRED_SCOPES: dict[tuple[str, str], Scope | None] = {
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/metrics"): Scope.READ,
    ("POST", "/clients"): Scope.OPERATE,
    ("GET", "/clients"): Scope.READ,
    ("GET", "/clients/provisioning/jobs"): Scope.READ,
    ("GET", "/clients/{client_id}"): Scope.READ,
    ("GET", "/clients/{client_id}/badge.svg"): Scope.READ,
    ("GET", "/clients/{client_id}/events"): Scope.READ,
    ("POST", "/clients/{client_id}/provisioning/retry"): Scope.OPERATE,
    ("POST", "/clients/{client_id}/provisioning/cancel"): Scope.OPERATE,
    ("GET", "/admin/provisioning"): Scope.READ,
    ("GET", "/admin/provisioning/events"): Scope.READ,
    ("POST", "/admin/provisioning/failures/{group_id}/retry"): Scope.OPERATE,
    ("POST", "/admin/provisioning/pause"): Scope.ADMIN,
    ("POST", "/admin/provisioning/resume"): Scope.ADMIN,
}
