"""What people type finds the client that they mean."""

from __future__ import annotations

import pytest

from pgworker.status.queries import find_similar


@pytest.mark.parametrize(
    ("typed", "names", "offered"),
    [
        ("Akme", ["Acme Bakery", "Zebra"], ["Acme Bakery"]),
        ("acme", ["ACME", "Acme Bakery"], ["ACME", "Acme Bakery"]),
        ("bakery", ["Acme Bakery", "Bakery", "Zebra"], ["Bakery", "Acme Bakery"]),
        ("x", ["Acme", "Zebra"], []),
        ("Client", [f"client {number}" for number in range(9)], [f"client {n}" for n in range(3)]),
    ],
)
def test_a_name_with_a_typing_error_is_answered_with_up_to_three_similar_ones(
    typed: str, names: list[str], offered: list[str]
) -> None:
    assert sorted(find_similar(typed, names)) == sorted(offered)
