"""Every duration that follows from the lease, as a fraction of it: no other module divides it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from pgworker.db.pool import STATEMENT_TIMEOUT

# Below it a statement would time out because the machine is busy, not because the server is gone.
SHORTEST_STATEMENT_TIMEOUT = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """When a worker renews its leases, and when it stops what it can't renew.

    Once a lease has run out another worker may claim the job. So a worker that can't reach the
    database stops its phases earlier, by its own clock (self-fencing). Counted from the moment at
    which the claim, or the newest successful renewal, was sent:

        1/3   the next renewal is sent
        2/3   it has failed at the latest: the connection, the answer and giving the connection
              back may take `renew_timeout` each
        7/10  it is sent again, and there is time for one more answer before
        5/6   the phase is cancelled; the fence notices up to 1/30 later
        1     another worker may claim the job: the phase had the time in between to clean up

    Attributes:
        lease: how long a claim lasts by the database's clock.
        renew_every: between two renewals that succeed.
        renew_timeout: for each of the three waits of a renewal.
        retry_every: from a renewal that failed to the next one.
        fence_margin: how long before its end a lease counts as lost.
        fence_every: between two looks at the clock.
        statement_timeout: for each of the three waits of any other statement of a worker (the
            connection, the answer, giving the connection back). All three fit into half a lease,
            so a result that the server didn't take is sent again while the job is surely held.
            Never longer than what any program of ours waits.
    """

    lease: timedelta
    renew_every: timedelta
    renew_timeout: timedelta
    retry_every: timedelta
    fence_margin: timedelta
    fence_every: timedelta
    statement_timeout: timedelta

    @classmethod
    def from_lease(cls, lease: timedelta) -> LeaseTiming:
        """Derive all of them."""
        return cls(
            lease=lease,
            renew_every=lease / 3,
            renew_timeout=lease / 9,
            retry_every=lease / 30,
            fence_margin=lease / 6,
            fence_every=lease / 30,
            statement_timeout=min(STATEMENT_TIMEOUT, max(lease / 6, SHORTEST_STATEMENT_TIMEOUT)),
        )
