"""Compares traffic with the published OpenAPI document of the Management API."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from openapi_schema_validator import OAS30Validator, oas30_format_checker
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DOCUMENT = Path(__file__).with_name("management-api.json")
# Statuses of any operation that the document doesn't have, but the API does.
UNDOCUMENTED = {400, 401, 402, 403, 404, 409, 415, 422, 429, 500, 502, 503, 504, 520, 521, 522, 544}
RATE_LIMIT_HEADERS = {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}


@dataclass(frozen=True, slots=True)
class Violation:
    """One disagreement with the document."""

    operation: str
    about: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.about}"


@dataclass
class ContractChecker:
    """Records where requests or answers disagree with the document.

    Wraps an ASGI application (`running_simulator(settings, middleware=[checker.middleware])`) or
    checks a pair by hand (`check`). Only paths under `/v1/` are checked.
    """

    requests: list[Violation] = field(default_factory=list)
    answers: list[Violation] = field(default_factory=list)
    seen: dict[str, set[int]] = field(default_factory=dict)

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Wrap an application, and record."""

        async def checked(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
                await app(scope, receive, send)
                return
            sent, received = bytearray(), bytearray()
            started: dict[str, Any] = {}

            async def receive_noting() -> Message:
                message = await receive()
                sent.extend(message.get("body", b""))
                return message

            async def send_noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    started.update(message)
                received.extend(message.get("body", b""))
                await send(message)

            await app(scope, receive_noting, send_noting)
            if started:
                self.check(
                    method=scope["method"],
                    path=scope["path"],
                    query=parse_qsl(scope["query_string"].decode(), keep_blank_values=True),
                    body=bytes(sent),
                    status=started["status"],
                    headers={
                        name.decode().lower(): text.decode() for name, text in started["headers"]
                    },
                    answer=bytes(received),
                )

        return checked

    def check(
        self,
        *,
        method: str,
        path: str,
        query: list[tuple[str, str]],
        body: bytes,
        status: int,
        headers: Mapping[str, str],
        answer: bytes,
    ) -> None:
        """Record the disagreements of one request and its answer."""
        found = find_operation(method, path)
        if found is None:
            self.requests.append(Violation(f"{method} {path}", "is not in the document"))
            return
        name, operation, in_path = found
        self.seen.setdefault(name, set()).add(status)
        wrong = [
            Violation(name, about) for about in request_mistakes(operation, in_path, query, body)
        ]
        self.requests += wrong
        about_answer = list(answer_mistakes(operation, status, headers, answer))
        if wrong and status < 300:
            about_answer.append(f"{status} for a request that violates the document")
        self.answers += [Violation(name, about) for about in about_answer]


@cache
def document() -> dict[str, Any]:
    """Return the document with its references resolved."""
    raw = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    schemas = raw["components"]["schemas"]

    def resolved(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolved(schemas[node["$ref"].rpartition("/")[2]])
            # OAS30Validator looks the values of a discriminator up as references, which the
            # document doesn't have at `region_selection`; `oneOf` alone is enough.
            return {key: resolved(value) for key, value in node.items() if key != "discriminator"}
        if isinstance(node, list):
            return [resolved(item) for item in node]
        return node

    whole: dict[str, Any] = resolved(raw)
    return whole


def find_operation(method: str, path: str) -> tuple[str, dict[str, Any], dict[str, str]] | None:
    """Return name, definition and path parameters of an operation; literal paths go first."""
    for template in sorted(document()["paths"], key=lambda known: known.count("{")):
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template)
        match = re.fullmatch(pattern, path)
        operation = document()["paths"][template].get(method.lower())
        if match and operation:
            return f"{method} {template}", operation, match.groupdict()
    return None


def request_mistakes(
    operation: Mapping[str, Any],
    in_path: Mapping[str, str],
    query: list[tuple[str, str]],
    body: bytes,
) -> list[str]:
    """Return what is wrong with a request."""
    mistakes: list[str] = []
    known = {p["name"]: p for p in operation.get("parameters", ()) if p["in"] == "query"}
    mistakes += [f"unknown query parameter {name}" for name, _ in query if name not in known]
    for parameter in operation.get("parameters", ()):
        name, schema = parameter["name"], parameter["schema"]
        given = [value for key, value in query if key == name]
        if parameter["in"] == "path":
            given = [in_path[name]]
        elif parameter["in"] != "query":
            continue
        if given:
            mistakes += [
                f"{name}: {text}" for text in schema_mistakes(typed(given, schema), schema)
            ]
        elif parameter.get("required"):
            mistakes.append(f"{name} is missing")
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        mistakes += json_mistakes(body, schema)
    elif body:
        mistakes.append("a body where there is none")
    return mistakes


def answer_mistakes(
    operation: Mapping[str, Any], status: int, headers: Mapping[str, str], answer: bytes
) -> list[str]:
    """Return what is wrong with an answer."""
    mistakes = [f"no header {name}" for name in sorted(RATE_LIMIT_HEADERS - headers.keys())]
    declared = operation["responses"].get(str(status))
    if declared is None and status not in UNDOCUMENTED:
        mistakes.append(f"status {status} is not in the document")
    if declared and "content" in declared:
        mistakes += json_mistakes(answer, declared["content"]["application/json"]["schema"])
    elif 400 <= status < 500:
        message = {"type": "string"}
        error = {
            "type": "object",
            "required": ["message"],
            "properties": {"message": {"anyOf": [message, {"type": "array", "items": message}]}},
        }
        mistakes += json_mistakes(answer, error)
    return [f"{status}: {about}" for about in mistakes]


def typed(values: list[str], schema: Mapping[str, Any]) -> Any:
    """Return a parameter as the type of its schema, or unchanged when that is impossible."""
    match schema["type"]:
        case "array":
            return values
        case "integer":
            return int(values[-1]) if re.fullmatch(r"-?\d+", values[-1]) else values[-1]
        case "boolean":
            return {"true": True, "false": False}.get(values[-1], values[-1])
        case _:
            return values[-1]


def json_mistakes(content: bytes, schema: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a JSON text."""
    try:
        value = json.loads(content)
    except ValueError:
        return ["is not JSON"]
    return schema_mistakes(value, schema)


def schema_mistakes(value: Any, schema: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a value, without the value."""
    validator = OAS30Validator(schema, format_checker=oas30_format_checker)
    return [
        f"{'/'.join(str(part) for part in error.path) or 'body'} fails {error.validator}"
        for error in validator.iter_errors(value)
    ]
