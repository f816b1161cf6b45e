"""Judges the audit trail: does it tell one whole story of each job, told by those who held it?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chaos.snapshot import Row

# Who makes the token grow, and who may: a job whose holders fell silent too often fails by a claim.
GROWS = {"claimed", "rescued", "retried"}
MAY_GROW = GROWS | {"failed", "cancelled"}
ATTEMPTS = {"backed_off", "failed"}
# What begins the counting anew.
BEGINS = {"enqueued", "advanced", "retried"}


@dataclass(slots=True)
class _Counts:
    attempts: int = 0
    crashes: int = 0


def gaps(job: Row, events: Sequence[Row]) -> Iterator[str]:
    """Tell where the story of a job has a gap."""
    if not events:
        yield "it has no events"
        return
    first, last = events[0], events[-1]
    if first["event"] != "enqueued" or first["from_status"] is not None:
        yield f"its story begins with {first['event']} from {first['from_status']}"
    for before, after in pairwise(events):
        for what in ("status", "phase"):
            if after[f"from_{what}"] != before[f"to_{what}"]:
                yield (
                    f"event {after['id']} ({after['event']}) begins in {what} "
                    f"{after[f'from_{what}']}, and event {before['id']} ({before['event']}) "
                    f"ended in {before[f'to_{what}']}"
                )
    if (last["to_status"], last["to_phase"]) != (job["status"], job["job_type"]):
        yield (
            f"its story ends in {last['to_status']}/{last['to_phase']} "
            f"and it is in {job['status']}/{job['job_type']}"
        )
    if last["claim_token"] != job["claim_token"]:
        yield f"its story ends with token {last['claim_token']}, it has {job['claim_token']}"


def stale_events(events: Sequence[Row]) -> Iterator[str]:
    """Tell of events by somebody who didn't hold the job, or with a token of the past."""
    holder: str | None = None
    befores: tuple[Row | None, ...] = (None, *events)
    for before, event in zip(befores, events, strict=False):
        name = f"event {event['id']} ({event['event']} by {event['actor']})"
        grown = event["claim_token"] - (before["claim_token"] if before is not None else 0)
        if grown < 0:
            yield f"{name} has token {event['claim_token']}, the one before {_token(before)}"
        elif grown > 1 or (grown == 0 and event["event"] in GROWS):
            yield f"{name} has token {event['claim_token']} after {_token(before)}"
        elif grown == 1 and event["event"] not in MAY_GROW:
            yield f"{name} made the token grow"
        if event["event"] in {"claimed", "rescued"}:
            holder = event["actor"]
        elif event["from_status"] == "running" and not grown and event["actor"] != holder:
            yield f"{name}, and {holder} held the job"


def _token(event: Row | None) -> int:
    return 0 if event is None else int(event["claim_token"])


def miscounts(job: Row, events: Sequence[Row]) -> Iterator[str]:
    """Tell of failed attempts and of crashes that were counted twice, or not at all."""
    counts = _Counts()
    token = 0
    for event in events:
        is_poison = event["event"] == "failed" and event["claim_token"] > token
        token = event["claim_token"]
        if event["event"] in BEGINS:
            counts = _Counts()
        elif event["event"] == "rescued" or is_poison:
            counts.crashes += 1
        elif event["event"] in ATTEMPTS:
            counts.attempts += 1
            told = (event["detail"] or {}).get("attempts")
            if told != counts.attempts:
                yield f"event {event['id']} counts attempt {told}, it is number {counts.attempts}"
    if job["attempts"] != counts.attempts:
        yield f"it counts {job['attempts']} attempts, its story has {counts.attempts}"
    if job["crashes"] != counts.crashes:
        yield f"it counts {job['crashes']} crashes, its story has {counts.crashes}"
