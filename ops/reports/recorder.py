"""What a real provider sent, as a fixture in the form of tests/answers/: every surprise becomes a test by copying one file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from worker.errors.catalog import Failure
from worker.errors.classify import Broken, Reply, redacted
from worker.routes.route import Route

_HEADERS = re.compile(
    r"retry-after|ratelimit|^content-type$"
)  # what an answer's meaning can depend on; no ids, no cookies
_MEANINGS = (
    "code",
    "action",
    "breaker",
    "scope",
    "cooldown",
    "retry_after",
    "parameter",
    "instead",
    "ambiguous",
    "retries",
)
LONGEST_TEXT = 4000


def row_of(
    about: str, answer: Reply | Broken, failure: Failure | None, secrets: Sequence[str]
) -> dict[str, Any] | None:
    """One row of a fixture: `means` holds only what differs from nothing, and is null for a good answer. None: nothing came."""
    if isinstance(answer, Broken):
        return None
    headers = {name: value for name, value in answer.headers.items() if _HEADERS.search(name.lower())}
    body = answer.body if answer.body is not None else answer.text
    return {
        "about": about,
        "status": answer.status,
        "headers": _without(headers, secrets),
        "body": _without(body, secrets),
        "means": _means(failure) if failure else None,
    }


def write(folder: Path, route: Route, rows: Sequence[Mapping[str, Any]]) -> Path:
    """One file a route, written anew."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (re.sub(r"[^\w.-]+", "-", route.name).strip("-.") + ".yaml")
    head = f"# {route.name}, as it answered. A copy in tests/answers/ is a test; `means` is what we made of it.\n"
    path.write_text(head + yaml.safe_dump(list(rows), sort_keys=False, allow_unicode=True, width=160), encoding="utf-8")
    return path


def _means(failure: Failure) -> dict[str, Any]:
    usual = {field.name: field.default for field in fields(Failure)}
    found = {name: getattr(failure, name) for name in _MEANINGS}
    kept = {
        name: value for name, value in found.items() if name in ("code", "action", "breaker") or value != usual[name]
    }
    return {name: str(value) if isinstance(value, str) else value for name, value in kept.items()}


def _without(value: Any, secrets: Sequence[str]) -> Any:
    """The same without any key that it may quote, texts cut."""
    if isinstance(value, str):
        for secret in ("", *secrets):
            value = redacted(value, secret)
        return value[:LONGEST_TEXT]
    if isinstance(value, Mapping):
        return {str(name): _without(inner, secrets) for name, inner in value.items()}
    return [_without(inner, secrets) for inner in value] if isinstance(value, list | tuple) else value
