"""API keys of a project: how they are made and masked. No I/O.

Shapes: Supabase Management API v1, `ApiKeyResponse`; which fields are null and which values come
in clear without `reveal` is as the API's recorded answers show it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
LEGACY_ISSUED_AT = 1_750_000_000
LEGACY_EXPIRES_AT = LEGACY_ISSUED_AT + 10 * 365 * 24 * 3600

KeyType = Literal["legacy", "publishable", "secret"]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key.

    Attributes:
        role: the PostgreSQL role that a Data API request with it takes.
    """

    id: str
    name: str
    type: KeyType
    role: str
    value: str = field(repr=False)
    inserted_at: str | None = None
    description: str | None = None

    def as_json(self, *, reveal: bool) -> dict[str, Any]:
        """Return the key as the API shows it; a secret is masked unless revealed."""
        if self.type == "legacy":
            return {"name": self.name, "api_key": self.value, "id": self.name, "type": "legacy"}
        secret = self.type == "secret"
        prefix = self.value[: len(f"sb_{self.type}_") + 5]
        shown = self.value if reveal or not secret else prefix + "·" * 26
        return {
            "name": self.name,
            "api_key": shown,
            "id": self.id,
            "type": self.type,
            "prefix": prefix,
            "hash": hashlib.sha256(self.value.encode()).hexdigest() if secret else None,
            "description": self.description,
            "secret_jwt_template": {"role": self.role} if secret else None,
            "inserted_at": self.inserted_at,
            "updated_at": self.inserted_at,
        }


def make_key(
    random: Random,
    *,
    type: Literal["publishable", "secret"],  # noqa: A002 (the API's own word)
    name: str,
    role: str,
    inserted_at: str,
    description: str | None = None,
) -> ApiKey:
    """Make a publishable or secret key."""
    body = "".join(random.choices(LETTERS, k=22))
    check = "".join(random.choices(LETTERS, k=8))
    return ApiKey(
        id=_uuid(random),
        name=name,
        type=type,
        role=role,
        value=f"sb_{type}_{body}_{check}",
        inserted_at=inserted_at,
        description=description,
    )


def make_legacy_key(*, role: str, ref: str, jwt_secret: str) -> ApiKey:
    """Make a legacy key: a real HS256 JWT whose name and id are its role."""
    claims = {
        "iss": "supabase",
        "ref": ref,
        "role": role,
        "iat": LEGACY_ISSUED_AT,
        "exp": LEGACY_EXPIRES_AT,
    }
    signed = f"{_base64url({'alg': 'HS256', 'typ': 'JWT'})}.{_base64url(claims)}"
    signature = hmac.new(jwt_secret.encode(), signed.encode(), hashlib.sha256).digest()
    encoded = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    return ApiKey(id=role, name=role, type="legacy", role=role, value=f"{signed}.{encoded}")


def make_first_keys(
    random: Random,
    *,
    kinds: Literal["both", "new", "legacy"],
    ref: str,
    inserted_at: str,
    foreign_secret: bool,
) -> list[ApiKey]:
    """Return the keys that a new project has; both of the new kinds are named `default`."""
    keys: list[ApiKey] = []
    jwt_secret = "".join(random.choices(LETTERS, k=40))
    if kinds != "new":
        keys += [
            make_legacy_key(role=role, ref=ref, jwt_secret=jwt_secret)
            for role in ("anon", "service_role")
        ]
    if foreign_secret:
        keys.append(
            make_key(
                random,
                type="secret",
                name="reporting",
                role="authenticated",
                inserted_at=inserted_at,
            )
        )
    if kinds != "legacy":
        keys.append(
            make_key(
                random, type="publishable", name="default", role="anon", inserted_at=inserted_at
            )
        )
        keys.append(
            make_key(
                random, type="secret", name="default", role="service_role", inserted_at=inserted_at
            )
        )
    return keys


def _base64url(value: dict[str, Any]) -> str:
    text = json.dumps(value, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _uuid(random: Random) -> str:
    digits = f"{random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
