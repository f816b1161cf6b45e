"""Tenants' secrets: encrypted at rest, bound to client and field, audited when shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgworker.db.pool import open_pool
from pgworker.errors import BadConfiguration, DatabaseUnreachable
from pgworker.tenants.secrets import SECRET_QUERIES, TenantSecrets, Vault
from tests.support.polling import wait_for_lock
from tests.support.workers import within

if TYPE_CHECKING:
    from pgworker.db.pool import Pool

CLIENT = UUID("0b54e3a2-7c1d-4a1e-9f00-1234567890ab")
OLD, NEW = bytes(range(32)), bytes(range(32, 64))
VAULT = Vault({"old": OLD})

names = st.sampled_from(["db_password", "dsn", "secret_key", "anon_key"])
values = st.text(st.characters(codec="utf-8"), max_size=200)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with open_pool(database, max_size=4) as opened:
        yield opened


async def a_client(pool: Pool) -> UUID:
    client_id: UUID = await pool.fetchval("insert into clients (name) values ('Acme') returning id")
    return client_id


async def put(pool: Pool, vault: Vault, client_id: UUID, **fields: str) -> None:
    await TenantSecrets(pool, vault).put(client_id, fields)


# -- the vault --------------------------------------------------------------------------------


@given(client_id=st.uuids(), name=names, value=values)
def test_a_sealed_value_can_be_opened(client_id: UUID, name: str, value: str) -> None:
    assert VAULT.open(client_id, name, VAULT.seal(client_id, name, value)) == value


@given(client_id=st.uuids(), name=names, value=values)
def test_a_value_is_sealed_differently_each_time(client_id: UUID, name: str, value: str) -> None:
    first, second = (VAULT.seal(client_id, name, value) for _ in range(2))

    assert first.nonce != second.nonce
    assert first.ciphertext != second.ciphertext


@given(other=st.uuids(), value=values)
def test_a_row_copied_to_another_client_does_not_decrypt(other: UUID, value: str) -> None:
    sealed = VAULT.seal(CLIENT, "dsn", value)

    if other != CLIENT:
        with pytest.raises(BadConfiguration, match="does not decrypt dsn of client"):
            VAULT.open(other, "dsn", sealed)


def test_a_row_copied_to_another_field_does_not_decrypt() -> None:
    sealed = VAULT.seal(CLIENT, "anon_key", "x")

    with pytest.raises(BadConfiguration, match="does not decrypt secret_key"):
        VAULT.open(CLIENT, "secret_key", sealed)


@given(part=st.sampled_from(["nonce", "ciphertext"]), data=st.data(), value=values)
def test_a_row_that_was_tampered_with_does_not_decrypt(
    part: str, data: st.DataObject, value: str
) -> None:
    sealed = VAULT.seal(CLIENT, "dsn", value)
    genuine = getattr(sealed, part)
    flipped = data.draw(st.integers(0, len(genuine) * 8 - 1))
    changed = bytearray(genuine)
    changed[flipped // 8] ^= 1 << flipped % 8

    parts: dict[str, Any] = {part: bytes(changed)}
    with pytest.raises(BadConfiguration, match="tampered"):
        VAULT.open(CLIENT, "dsn", replace(sealed, **parts))


@pytest.mark.parametrize("part", ["nonce", "ciphertext"])
@given(length=st.integers(0, 11))
def test_a_row_that_was_cut_short_does_not_decrypt(part: str, length: int) -> None:
    sealed = VAULT.seal(CLIENT, "dsn", "value")

    with pytest.raises(BadConfiguration, match="tampered"):
        VAULT.open(CLIENT, "dsn", replace(sealed, **{part: getattr(sealed, part)[:length]}))


def test_a_missing_key_is_named_with_what_it_encrypts() -> None:
    sealed = Vault({"2025": OLD}).seal(CLIENT, "dsn", "x")

    with pytest.raises(
        BadConfiguration, match=f"the key 2025 is missing; it encrypts dsn .*{CLIENT}"
    ):
        Vault({"2026": NEW}).open(CLIENT, "dsn", sealed)


def test_another_key_with_the_same_id_is_detected() -> None:
    sealed = Vault({"k": OLD}).seal(CLIENT, "dsn", "x")

    with pytest.raises(BadConfiguration, match="another key goes by that id"):
        Vault({"k": NEW}).open(CLIENT, "dsn", sealed)


def test_without_a_key_nothing_is_stored() -> None:
    with pytest.raises(BadConfiguration, match="PGWORKER_ENCRYPTION_KEYS is not set"):
        Vault({})


def test_the_text_form_of_a_sealed_value_shows_nothing() -> None:
    assert repr(VAULT.seal(CLIENT, "dsn", "x")) == "Sealed(key_id='old')"


# -- the table --------------------------------------------------------------------------------


async def test_the_table_contains_nothing_readable(pool: Pool) -> None:
    client_id = await a_client(pool)
    await put(pool, VAULT, client_id, db_password="correct-horse-battery", dsn="postgresql://u@h")

    for row in await pool.fetch("select nonce, ciphertext from pgworker.tenant_secrets"):
        assert b"horse" not in row["ciphertext"]
        assert b"postgresql" not in row["ciphertext"]
    shown = await pool.fetchval("select string_agg(s::text, ' ') from pgworker.tenant_secrets s")
    assert b"correct-horse".hex() not in shown


async def test_a_repeated_put_overwrites_and_adds_no_row(pool: Pool) -> None:
    client_id = await a_client(pool)

    await put(pool, VAULT, client_id, dsn="first", anon_key="a")
    await put(pool, VAULT, client_id, dsn="second")

    assert await TenantSecrets(pool, VAULT).get_fields(client_id) == {
        "dsn": "second",
        "anon_key": "a",
    }


async def test_a_rotation_encrypts_all_values_again_and_returns_their_number(pool: Pool) -> None:
    clients = [await a_client(pool) for _ in range(3)]
    for client_id in clients:
        await put(pool, VAULT, client_id, dsn=f"dsn of {client_id}", anon_key="a")
    both = TenantSecrets(pool, Vault({"new": NEW, "old": OLD}))

    assert await both.count_by_key() == {"old": 6}
    assert await both.rotate() == 6
    assert await both.count_by_key() == {"new": 6}
    assert await both.rotate() == 0

    only_new = TenantSecrets(pool, Vault({"new": NEW}))
    for client_id in clients:
        assert (await only_new.get_fields(client_id))["dsn"] == f"dsn of {client_id}"
    logged = await pool.fetch("select detail from pgworker.event_log where event = 'keys_rotated'")
    assert [row["detail"] for row in logged] == [{"secrets": 6, "key_id": "new"}]


async def test_an_interrupted_rotation_continues_where_it_stopped(pool: Pool) -> None:
    client_id = await a_client(pool)
    await put(pool, VAULT, client_id, **{f"field_{n:04}": str(n) for n in range(600)})
    # Sorts last, so the second batch meets it: its key isn't there.
    await put(pool, Vault({"lost": NEW}), client_id, zzz="z")
    both = TenantSecrets(pool, Vault({"new": NEW[::-1], "old": OLD}))

    with pytest.raises(BadConfiguration, match="the key lost is missing"):
        await both.rotate()
    assert await both.count_by_key() == {"lost": 1, "new": 500, "old": 100}

    repaired = TenantSecrets(pool, Vault({"new": NEW[::-1], "old": OLD, "lost": NEW}))
    assert await repaired.rotate() == 101
    assert await repaired.count_by_key() == {"new": 601}
    assert (await repaired.get_fields(client_id))["field_0599"] == "599"


async def test_a_rotation_waits_for_a_value_that_is_being_written(pool: Pool) -> None:
    client_id = await a_client(pool)
    await put(pool, VAULT, client_id, dsn="first")
    both = TenantSecrets(pool, Vault({"new": NEW, "old": OLD}))

    async with pool.acquire() as connection, connection.transaction():
        # A worker that still encrypts with the old key is in the middle of its transaction.
        await TenantSecrets(pool, VAULT).put(client_id, {"dsn": "second"}, connection=connection)
        rotation = asyncio.create_task(both.rotate())
        await wait_for_lock(pool)
    assert await within(rotation) == 1

    assert await both.count_by_key() == {"new": 1}
    assert await both.get_fields(client_id) == {"dsn": "second"}


async def test_showing_secrets_is_recorded_before_they_are_read(pool: Pool) -> None:
    client_id = await a_client(pool)
    await put(pool, Vault({"lost": NEW}), client_id, dsn="x")

    with pytest.raises(BadConfiguration, match="the key lost is missing"):
        await TenantSecrets(pool, VAULT).reveal(client_id)

    rows = await pool.fetch(
        "select actor, detail from pgworker.event_log where client_id = $1", client_id
    )
    assert [row["detail"] for row in rows] == [{}]
    assert rows[0]["actor"].startswith("cli:")


async def test_secrets_that_cannot_be_recorded_are_not_shown(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_id = await a_client(pool)
    await put(pool, VAULT, client_id, dsn="x")
    async with pool.acquire() as admin:
        await admin.execute("alter table pgworker.event_log rename to event_log_elsewhere")

    with pytest.raises(Exception, match="event_log") as raised:
        await TenantSecrets(pool, VAULT).reveal(client_id)

    assert not isinstance(raised.value, DatabaseUnreachable)


async def test_an_unknown_client_has_no_secrets(pool: Pool) -> None:
    assert await TenantSecrets(pool, VAULT).get_fields(uuid4()) == {}


def test_every_statement_of_the_file_is_used() -> None:
    assert all(SECRET_QUERIES)
