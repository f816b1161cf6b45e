"""Guessing a token is slow, and costs us no memory."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pgworker.api.attempts import SignInAttempts
from pgworker.api.problems import Refused


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_address_may_try_so_often_and_then_must_wait() -> None:
    clock = Clock()
    attempts = SignInAttempts(attempts=3, window=timedelta(seconds=60), clock=clock)
    for _ in range(3):
        attempts.count("192.0.2.1")
    clock.now = 10.5

    with pytest.raises(Refused) as refusal:
        attempts.count("192.0.2.1")

    assert refusal.value.status_code == 429
    assert refusal.value.headers == {"Retry-After": "50"}
    attempts.count("192.0.2.2")
    clock.now = 60
    attempts.count("192.0.2.1")


def test_neighbours_in_an_ipv6_network_are_one_address() -> None:
    attempts = SignInAttempts(attempts=1)
    attempts.count("2001:db8::1")
    with pytest.raises(Refused):
        attempts.count("2001:db8::ffff")
    attempts.count("2001:db8:0:1::1")


def test_after_a_sign_in_the_count_starts_again() -> None:
    attempts = SignInAttempts(attempts=1)
    attempts.count("192.0.2.1")
    attempts.reset("192.0.2.1")
    attempts.count("192.0.2.1")


def test_only_so_many_addresses_are_remembered() -> None:
    attempts = SignInAttempts(attempts=1, addresses=2)
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        attempts.count(address)
    attempts.count("192.0.2.1")
    with pytest.raises(Refused):
        attempts.count("192.0.2.3")
