"""Checks the audit trail: each job's events form one chain, written by the holders of the job."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chaos.snapshot import Row

# Events that increment the claim token, and those that may: a claim fails a job whose workers
# crashed too often.
INCREMENTS_TOKEN = {"claimed", "rescued", "retried"}
MAY_INCREMENT_TOKEN = INCREMENTS_TOKEN | {"failed", "cancelled"}
ATTEMPTS = {"backed_off", "failed"}
# Events that reset the counters.
RESETS = {"enqueued", "advanced", "retried"}


@dataclass(slots=True)
class _Counts:
    attempts: int = 0
    crashes: int = 0


def find_gaps(job: Row, events: Sequence[Row]) -> Iterator[str]:
    """Yield where the events of a job don't follow from one another."""
    if not events:
        yield "it has no events"
        return
    first, last = events[0], events[-1]
    if first["event"] != "enqueued" or first["from_status"] is not None:
        yield f"its first event is {first['event']} from {first['from_status']}"
    for before, after in pairwise(events):
        for field in ("status", "phase"):
            if after[f"from_{field}"] != before[f"to_{field}"]:
                yield (
                    f"event {after['id']} ({after['event']}) begins in {field} "
                    f"{after[f'from_{field}']}, but event {before['id']} ({before['event']}) "
                    f"ended in {before[f'to_{field}']}"
                )
    if (last["to_status"], last["to_phase"]) != (job["status"], job["job_type"]):
        yield (
            f"its events end in {last['to_status']}/{last['to_phase']}, "
            f"but it is in {job['status']}/{job['job_type']}"
        )
    if last["claim_token"] != job["claim_token"]:
        yield f"its events end with token {last['claim_token']}, but it has {job['claim_token']}"


def find_stale_events(events: Sequence[Row]) -> Iterator[str]:
    """Yield events with an old token, and events by a worker that didn't hold the job."""
    holder: str | None = None
    befores: tuple[Row | None, ...] = (None, *events)
    for before, event in zip(befores, events, strict=False):
        name = f"event {event['id']} ({event['event']} by {event['actor']})"
        increment = event["claim_token"] - _get_token(before)
        if increment < 0:
            yield f"{name} has token {event['claim_token']}, the one before {_get_token(before)}"
        elif increment > 1 or (increment == 0 and event["event"] in INCREMENTS_TOKEN):
            yield f"{name} has token {event['claim_token']} after {_get_token(before)}"
        elif increment == 1 and event["event"] not in MAY_INCREMENT_TOKEN:
            yield f"{name} incremented the token"
        if event["event"] in {"claimed", "rescued"}:
            holder = event["actor"]
        elif event["from_status"] == "running" and not increment and event["actor"] != holder:
            yield f"{name}, but {holder} held the job"


def _get_token(event: Row | None) -> int:
    return 0 if event is None else int(event["claim_token"])


def find_miscounts(job: Row, events: Sequence[Row]) -> Iterator[str]:
    """Yield failed attempts and crashes that were counted twice, or not at all."""
    counts = _Counts()
    token = 0
    for event in events:
        is_poison = event["event"] == "failed" and event["claim_token"] > token
        token = event["claim_token"]
        if event["event"] in RESETS:
            counts = _Counts()
        elif event["event"] == "rescued" or is_poison:
            counts.crashes += 1
        elif event["event"] in ATTEMPTS:
            counts.attempts += 1
            recorded = (event["detail"] or {}).get("attempts")
            if recorded != counts.attempts:
                yield f"event {event['id']} counts attempt {recorded}, it is {counts.attempts}"
    if job["attempts"] != counts.attempts:
        yield f"it counts {job['attempts']} attempts, its events show {counts.attempts}"
    if job["crashes"] != counts.crashes:
        yield f"it counts {job['crashes']} crashes, its events show {counts.crashes}"
