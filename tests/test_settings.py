"""Settings: every name of the contract, and one line for each mistake, without the value."""

from __future__ import annotations

import base64
import hashlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from pgworker.errors import BadConfiguration
from pgworker.models import ApiToken, Scope
from pgworker.settings import Settings, load_settings, parse_api_tokens, parse_encryption_keys

# Design, section 8, and the setting of section 5.
NAMES = [
    "DATABASE_URL",
    "PGWORKER_LISTEN_URL",
    "PGWORKER_DATA_DIR",
    "PGWORKER_PROVIDER",
    "PGWORKER_TENANTS_URL",
    "PGWORKER_MIGRATIONS_DIR",
    "PGWORKER_CONCURRENCY",
    "PGWORKER_LEASE_SECONDS",
    "PGWORKER_POLL_SECONDS",
    "PGWORKER_PROJECT_POLL_SECONDS",
    "PGWORKER_PROJECT_TIMEOUT_SECONDS",
    "PGWORKER_PHASE_TIMEOUT_SECONDS",
    "PGWORKER_CREATE_LOOKUP_SECONDS",
    "PGWORKER_BACKOFF_SECONDS",
    "PGWORKER_BACKOFF_CAP_SECONDS",
    "PGWORKER_ENCRYPTION_KEYS",
    "PGWORKER_HTTP",
    "PGWORKER_API_TOKENS",
    "PGWORKER_LOG_FORMAT",
    "PGWORKER_WORKFLOW",
    "SUPABASE_ACCESS_TOKEN",
    "SUPABASE_ORG_ID",
    "SUPABASE_DEFAULT_REGION",
    "SUPABASE_DEFAULT_PLAN",
    "SUPABASE_API_URL",
    "PGWORKER_SUPABASE_PROJECT_URL",
    "PGWORKER_SUPABASE_SQL",
    "PGWORKER_SUPABASE_POOLER_HOSTS",
    "PGWORKER_SUPABASE_POOLER_PORT",
]

BAD = {
    "DATABASE_URL": "mysql://me:hunter2@db/app",
    "PGWORKER_LISTEN_URL": "hunter2",
    "PGWORKER_PROVIDER": "hunter2 hunter2",
    "PGWORKER_TENANTS_URL": "hunter2",
    "PGWORKER_WORKFLOW": "hunter2 hunter2",
    "PGWORKER_CONCURRENCY": "-1",
    "PGWORKER_LEASE_SECONDS": "hunter2",
    "PGWORKER_POLL_SECONDS": "nan",
    "PGWORKER_PROJECT_POLL_SECONDS": "-5",
    "PGWORKER_PROJECT_TIMEOUT_SECONDS": "0",
    "PGWORKER_PHASE_TIMEOUT_SECONDS": "-1",
    "PGWORKER_CREATE_LOOKUP_SECONDS": "inf",
    "PGWORKER_BACKOFF_SECONDS": "1e300",
    "PGWORKER_BACKOFF_CAP_SECONDS": "5m",
    "PGWORKER_ENCRYPTION_KEYS": "main:hunter2",
    "PGWORKER_HTTP": "8080",
    "PGWORKER_API_TOKENS": "read:hunter2",
    "PGWORKER_LOG_FORMAT": "hunter2",
    "SUPABASE_ORG_ID": "hunter2/../x",
    "SUPABASE_API_URL": "ftp://hunter2",
    "PGWORKER_SUPABASE_PROJECT_URL": "https://hunter2.example",
    "PGWORKER_SUPABASE_SQL": "hunter2",
    "PGWORKER_SUPABASE_POOLER_PORT": "70000",
}
KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(str(tmp_path))  # without a .env


def test_every_setting_of_the_contract_exists_under_its_name() -> None:
    assert {field.alias for field in Settings.model_fields.values()} == set(NAMES)


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = load_settings()

    assert settings.database_url is None
    assert settings.provider == "postgres"
    assert settings.concurrency == 20
    assert settings.lease == settings.poll == timedelta(seconds=30)
    assert settings.project_poll == timedelta(seconds=5)
    assert settings.project_timeout == timedelta(seconds=1200)
    assert settings.create_lookup == timedelta(seconds=120)
    assert (settings.backoff, settings.backoff_cap) == (timedelta(seconds=2), timedelta(minutes=5))
    assert str(settings.migrations_dir) == "supabase/migrations"
    assert settings.supabase_default_region == "us-east-1"
    assert settings.supabase_project_url == "https://{ref}.supabase.co"
    assert settings.supabase_sql == "api"
    assert settings.supabase_pooler_hosts == (".supabase.com", ".supabase.co")
    assert settings.supabase_pooler_port == 5432


def test_a_token_makes_supabase_the_provider_unless_another_is_named() -> None:
    assert load_settings(SUPABASE_ACCESS_TOKEN="t").provider == "supabase"
    assert (
        load_settings(SUPABASE_ACCESS_TOKEN="t", PGWORKER_PROVIDER="postgres").provider
        == "postgres"
    )


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("PGWORKER_LEASE_SECONDS", "-1", "must be above 0 seconds"),
        ("PGWORKER_HTTP", "8080", "must be HOST:PORT, such as 127.0.0.1:8080"),
        ("PGWORKER_WORKFLOW", "a b", "must be MODULE:ATTRIBUTE, such as app.workflows:ONBOARDING"),
        ("SUPABASE_ORG_ID", "My Org!", "must be the organisation's slug: letters, digits, - and _"),
    ],
)
def test_a_bad_value_is_answered_with_what_it_must_be_and_with_no_pattern(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, advice: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadConfiguration) as caught:
        load_settings()
    assert str(caught.value) == f"{name}: {advice}"


@pytest.mark.parametrize("nothing", [timedelta(0), timedelta(seconds=-1)])
def test_a_program_may_not_set_a_duration_of_zero_or_less(nothing: timedelta) -> None:
    with pytest.raises(BadConfiguration, match="PGWORKER_LEASE_SECONDS: must be above 0 seconds"):
        load_settings(PGWORKER_LEASE_SECONDS=nothing)


@pytest.mark.parametrize(("name", "value"), BAD.items())
def test_a_bad_value_is_one_line_that_names_it_and_does_not_show_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(BadConfiguration) as refusal:
        load_settings()

    (line,) = str(refusal.value).splitlines()
    assert line.startswith(f"{name}: ")
    assert "hunter2" not in line


def test_each_of_several_mistakes_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in BAD.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(BadConfiguration) as refusal:
        load_settings()

    assert [line.partition(":")[0] for line in str(refusal.value).splitlines()] == list(BAD)


@pytest.mark.parametrize("address", ["127.0.0.1:65536", "[::1]:99999"])
def test_a_port_that_does_not_exist_is_refused(address: str) -> None:
    with pytest.raises(BadConfiguration, match="PGWORKER_HTTP: must have a port up to 65535"):
        load_settings(PGWORKER_HTTP=address)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("127.0.0.1:0", "127.0.0.1", 0), ("localhost:80", "localhost", 80), ("[::1]:80", "::1", 80)],
)
def test_without_a_token_http_is_accepted_on_a_loopback_address(
    address: str, host: str, port: int
) -> None:
    assert load_settings(PGWORKER_HTTP=address).http_address == (host, port)


def test_http_for_other_machines_needs_a_token() -> None:
    with pytest.raises(BadConfiguration, match=r"PGWORKER_API_TOKENS is not set.*127\.0\.0\.1:80"):
        load_settings(PGWORKER_HTTP="0.0.0.0:80")
    token = "read:0123456789abcdef"
    assert load_settings(PGWORKER_HTTP="0.0.0.0:80", PGWORKER_API_TOKENS=token).http_address


def test_a_cap_below_the_base_is_refused() -> None:
    with pytest.raises(BadConfiguration, match="PGWORKER_BACKOFF_CAP_SECONDS"):
        load_settings(PGWORKER_BACKOFF_SECONDS="10", PGWORKER_BACKOFF_CAP_SECONDS="5")


@pytest.mark.parametrize("name", NAMES)
def test_a_variable_set_to_nothing_counts_as_not_set(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    expected = load_settings()
    monkeypatch.setenv(name, "")

    assert load_settings() == expected


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_SECONDS")])
def test_all_durations_take_decimals(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "2.5")

    assert timedelta(seconds=2.5) in dict(load_settings()).values()


def test_listening_can_be_switched_off() -> None:
    assert load_settings(PGWORKER_LISTEN_URL="off").listen_url == "off"


def test_lists_are_separated_by_commas() -> None:
    settings = load_settings(PGWORKER_SUPABASE_POOLER_HOSTS=".x, y,")

    assert settings.supabase_pooler_hosts == (".x", "y")


def test_no_secret_is_in_what_is_printed_of_the_settings() -> None:
    settings = load_settings(
        DATABASE_URL="postgresql://me:hunter2@db/app",
        PGWORKER_TENANTS_URL="postgresql://me:hunter2@db/app",
        PGWORKER_LISTEN_URL="postgresql://me:hunter2@db/app",
        PGWORKER_API_TOKENS="read:hunter2hunter2hunter2",
        SUPABASE_ACCESS_TOKEN="hunter2",
        PGWORKER_ENCRYPTION_KEYS=f"main:{KEY}",
    )

    assert "hunter2" not in repr(settings)
    assert KEY not in repr(settings)


def test_the_env_file_is_read_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    with open(f"{tmp_path}/.env", "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write("PGWORKER_CONCURRENCY=3\nPGWORKER_POLL_SECONDS=7\n")
    monkeypatch.setenv("PGWORKER_CONCURRENCY", "4")

    settings = load_settings()

    assert (settings.concurrency, settings.poll) == (4, timedelta(seconds=7))


# -- tokens of the API -------------------------------------------------------------------------


def test_only_hashes_of_tokens_are_kept() -> None:
    token = "hunter2hunter2hunter2"
    digest = hashlib.sha256(token.encode())

    plain, hashed = (
        load_settings(PGWORKER_API_TOKENS=setting).api_tokens
        for setting in (f"ci:operate:{token}", f"ci:operate:sha256={digest.hexdigest()}")
    )

    assert plain == hashed == (ApiToken("ci", Scope.OPERATE, digest.digest()),)


def test_a_token_without_a_name_is_called_by_its_scope() -> None:
    (token,) = parse_api_tokens("read:0123456789abcdef")

    assert (token.name, token.scope) == ("read", Scope.READ)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("hunter2hunter2hunter2", "token 1 must be SCOPE:TOKEN"),
        ("write:hunter2hunter2hunter2", "a scope of read, operate, admin"),
        ("a:b:read:hunter2hunter2hunter2", "token 1 must be SCOPE:TOKEN"),
        ("a b:read:hunter2hunter2hunter2", "token 1 must be SCOPE:TOKEN"),
        ("read:hunter2", "16 characters or more"),
        ("read:sha256=hunter2", "64 hexadecimal digits"),
        ("read:sha256=00", "64 hexadecimal digits"),
        ("read:hunter2hunter2hunter2,admin:hunter2hunter2hunter2", "token 2 is given twice"),
    ],
)
def test_a_token_that_cannot_be_used_is_named_by_its_number(setting: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refusal:
        parse_api_tokens(setting)
    assert "hunter2" not in str(refusal.value)


# -- encryption keys --------------------------------------------------------------------------

key_ids = st.from_regex(r"\A[A-Za-z0-9_.-]{1,64}\Z")


@given(st.lists(st.tuples(key_ids, st.binary(min_size=32, max_size=32)), unique_by=lambda k: k[0]))
def test_keys_come_out_as_they_went_in_and_in_their_order(keys: list[tuple[str, bytes]]) -> None:
    text = tuple(SecretStr(f"{key_id}:{base64.b64encode(raw).decode()}") for key_id, raw in keys)

    assert list(parse_encryption_keys(text).items()) == keys


@given(st.text(min_size=6))
def test_any_other_text_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="key 1 must be") as refusal:
        parse_encryption_keys((SecretStr(text),))

    assert text not in str(refusal.value)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="key 1 must be"):
        parse_encryption_keys((SecretStr(f"a:{base64.b64encode(bytes(size)).decode()}"),))


def test_a_key_id_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="the key id a is given twice"):
        parse_encryption_keys((SecretStr(f"a:{KEY}"), SecretStr(f"a:{KEY}")))
