"""Password verifiers: they are what PostgreSQL itself would have stored."""

from __future__ import annotations

import base64
import secrets

import asyncpg
import pytest

from pgworker.providers.postgres.scram import scram_verifier
from tests.support.server import dsn_of


def test_the_verifier_is_that_of_the_example_in_rfc_7677() -> None:
    # RFC 7677, section 3: user "user", password "pencil", this salt, 4096 iterations. The keys
    # are checked against that exchange: ClientProof and ServerSignature follow from them.
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")

    verifier = scram_verifier("pencil", salt=salt)

    assert verifier == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_a_password_has_another_verifier_each_time() -> None:
    assert scram_verifier("pencil") != scram_verifier("pencil")


async def test_the_server_accepts_the_password_and_no_other(
    empty_database: str,
) -> None:
    role = f"scram_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(empty_database)
    try:
        verifier = scram_verifier("correct-horse")
        await admin.execute(f"create role {role} login password '{verifier}'")
        login = {"user": role, "password": "correct-horse"}
        connection = await asyncpg.connect(empty_database, **login)
        assert await connection.fetchval("select current_user") == role
        await connection.close()
        if await _asks_for_passwords(empty_database):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(empty_database, user=role, password="wrong")
    finally:
        await admin.execute(f"drop role if exists {role}")
        await admin.close()


async def _asks_for_passwords(dsn: str) -> bool:
    """Return whether the server asks for passwords: a named one may trust all logins."""
    try:
        connection = await asyncpg.connect(dsn_of(dsn, "postgres"), password="surely-not-it")
    except asyncpg.InvalidPasswordError:
        return True
    await connection.close()
    return False
