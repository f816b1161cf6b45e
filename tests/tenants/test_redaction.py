"""What looks like a credential doesn't get into stored or shown text."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgworker.tenants.redaction import HIDDEN, LIMIT, scrub

SIZE = 64 * 1024
# The note between head and tail, and a mark that is longer than what it hides.
SLACK = 200
# Pieces that patterns for credentials begin with, or wait for.
TRAPS = (
    "A", " ", "eyJ", "eyJ-", "eyJa.", "a://", "a://b:", "a://b:c@", "@", ":", "//", "bearer ",
    "bearer\n", "password", "password ", "password '", 'password="', "db_pass:", "sbp_", "'", '"',
    "\u00e9", "\0",
)  # fmt: skip


def test_a_known_secret_is_hidden_wherever_it_stands() -> None:
    assert scrub("user x: hunter2hunter2!", ["hunter2hunter2"]) == f"user x: {HIDDEN}!"


def test_a_secret_that_holds_another_one_is_hidden_whole() -> None:
    secrets = ["pw123456", "postgresql://u:pw123456@h/db"]

    assert scrub("at postgresql://u:pw123456@h/db.", secrets) == f"at {HIDDEN}."


def test_an_empty_secret_hides_nothing() -> None:
    assert scrub("as it was", [""]) == "as it was"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("token sbp_0123456789abcdef refused", "sbp_0123456789abcdef"),
        ("key sb_secret_Abc-123_x", "sb_secret_Abc-123_x"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9.c2ln", "eyJyb2xlIjoiYW5vbiJ9"),
        ("Authorization: Bearer abcdef.123", "abcdef.123"),
        ("postgresql://pgw_1:s3cret@host:5432/db", "s3cret"),
        ("postgresql://pgw_1:p@ss@host/db", "ss@host"),
        ('{"db_pass": "s3cret"}', "s3cret"),
        ("db_password=s3cret", "s3cret"),
        ("PGPASSWORD=s3cret psql", "s3cret"),
        ("host=h user=u password=s3cret", "s3cret"),
        ("password='two words'", "words"),
        ("alter role x password 's3cret'", "s3cret"),
    ],
)
def test_a_text_like_a_credential_is_hidden_without_being_known(text: str, secret: str) -> None:
    scrubbed = scrub(text)

    assert secret not in scrubbed
    assert HIDDEN in scrubbed


@pytest.mark.parametrize(
    "text",
    [
        'password authentication failed for user "pgw_1"',
        "127.0.0.1:5432 refuses the tenant's password [28P01]: reset or rotate it",
        "postgresql://pgw_1@host:5432/db",
        '20260101000000_base.sql:3 (statement 2): column "x" does not exist [42703]',
    ],
)
def test_a_text_that_a_person_needs_stays(text: str) -> None:
    assert scrub(text) == text


# -- arbitrary texts --------------------------------------------------------------------------


def seconds(action: object, text: str) -> float:
    """Return the processor's time that one call takes at best."""
    assert callable(action)
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        action(text)
        best = min(best, time.process_time() - began)
    return best


def copy(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@given(pieces=st.lists(st.sampled_from(TRAPS), min_size=1, max_size=4))
def test_no_text_takes_longer_than_a_number_of_copies_of_it(pieces: list[str]) -> None:
    trap = "".join(pieces)
    text = trap * (SIZE // len(trap))

    assert len(scrub(text)) <= LIMIT + SLACK
    # A pattern with quadratic time takes 40,000 copies and more.
    assert seconds(scrub, text) < 400 * seconds(copy, text) + 0.002


@given(text=st.text(max_size=3 * LIMIT), secret=st.text(min_size=1, max_size=300))
def test_no_part_of_a_known_secret_is_left_by_the_cut(text: str, secret: str) -> None:
    marked = "\ue000" + secret.replace("\ue000", "") + "\ue000"
    around = text.replace("\ue000", "")

    for before in (LIMIT // 2 - 10, LIMIT // 2 + LIMIT - 10):
        scrubbed = scrub("x" * before + marked + around + "y" * 5 * LIMIT, [marked])
        assert "\ue000" not in scrubbed


def test_head_and_tail_of_a_long_text_remain() -> None:
    scrubbed = scrub("the cause: " + "x" * 10**6 + " the end")

    assert scrubbed.startswith("the cause: ")
    assert scrubbed.endswith(" the end")
    assert "1000019 characters" in scrubbed


def test_a_huge_text_is_never_copied_whole() -> None:
    text = "A" * (40 * 1024 * 1024)
    tracemalloc.start()
    try:
        scrub(text, ["secret"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1024 * 1024
