"""What looks like a credential doesn't get into stored or shown text."""

from __future__ import annotations

import pytest

from pgworker.tenants.redaction import HIDDEN, scrub


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
def test_what_looks_like_a_credential_is_hidden_even_when_nobody_named_it(
    text: str, secret: str
) -> None:
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
def test_what_a_person_needs_to_read_stays(text: str) -> None:
    assert scrub(text) == text
