"""LiteLLM's prefixes, as data: providers.yaml says where each one's calls go. Its own comments explain the fields."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field

Rule = Literal["plain", "known", "azure", "azure_ai", "gemini", "huggingface", "ollama"]


class Prefix(BaseModel):
    """One row. `name`: the prefix itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    provider: str = ""
    address: str | None = None
    bases: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    api: Literal["openai", "anthropic"] = "openai"
    rule: Rule = "plain"
    ends: str = ""
    if_bare: str = ""
    bare: bool = False
    hosts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    key_starts: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    model_prefix: str = ""
    vendor_ids: bool = False
    vendor: str = ""
    note: str = ""
    left_out: str = ""

    def model_post_init(self, _: object) -> None:
        if not self.provider:
            object.__setattr__(self, "provider", self.name)

    def owns(self, host: str) -> bool:
        """Whether the host is the provider's own, or below one of its own."""
        own = (*self.hosts, *([host_of(self.address)] if self.address else []))
        return any(
            host == each or host.endswith((f".{each}", f"-{each}"))
            for each in own
            if "." in each and each != "127.0.0.1"
        )


class _Table(BaseModel):
    source: str
    checked: str
    prefixes: dict[str, dict[str, object]] = Field(min_length=1)


@cache
def prefixes() -> dict[str, Prefix]:
    """The table, by prefix."""
    table = _Table.model_validate(yaml.safe_load(Path(__file__).with_name("providers.yaml").read_text("utf-8")))
    return {name: Prefix.model_validate({"name": name, **row}) for name, row in table.prefixes.items()}


def of_host(url: str) -> Prefix | None:
    """The provider whose own host the URL names."""
    host = host_of(url)
    return next((row for row in prefixes().values() if host and row.owns(host)), None)


def of_name(model: str) -> Prefix | None:
    """The provider of a model id without a prefix: the longest beginning that is known."""
    begun = [(begin, row) for row in prefixes().values() for begin in row.names if model.startswith(begin)]
    return max(begun, key=lambda each: len(each[0]))[1] if begun else None


def of_variable(variable: str) -> list[Prefix]:
    """The providers that the name of a key's variable tells of: AZURE_OPENAI_KEY is Azure's, GROQ_API_KEY_2 is Groq's."""
    rows = [row for row in prefixes().values() if not row.left_out]
    if exact := [row for row in rows if variable in row.keys]:
        return exact
    words = set(re.split(r"[_\d]+", variable.upper()))
    found = [row for row in rows if words.intersection(row.words)]
    return [row for row in found if row.name != "openai"] or found


def of_key(secret: str) -> Prefix | None:
    """The provider of a key, by how it begins."""
    return next((row for row in prefixes().values() if any(map(secret.startswith, row.key_starts))), None)


def host_of(url: str) -> str:
    """The host in lower case; "" for a URL whose host is a variable, or that is none."""
    try:
        host = (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""
    return "" if "$" in host or "{" in host else host
