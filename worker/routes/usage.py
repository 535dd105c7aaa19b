"""The tokens of a call, read by what the numbers of a `usage` say together, under any of the names that providers give
them.

Sources: the API references of OpenAI, Anthropic, Google, xAI, DeepSeek and Mistral, and LiteLLM's normal form, as of
November 2026. What cannot be read is None, and never zero: such a call may have been billed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.routes.tokens import MOST_TOKENS

_PROMPT, _COMPLETION = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")
_CACHED = (
    "cached_tokens",
    "cache_read_input_tokens",
    "prompt_cache_hit_tokens",
    "cached_prompt_tokens",
    "cache_read_tokens",
)
_WRITTEN = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
_WRITTEN_HOUR = ("cache_write_1h_tokens", "ephemeral_1h_input_tokens")
_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details", "cache_creation")


@dataclass(frozen=True)
class Usage:
    """Tokens. `cached`, `written` (to a cache of minutes) and `written_hour` (of an hour) are parts of `prompt`. `audio`:
    tokens that have a price of their own. `tier`: the service tier that was billed, where the provider names it."""

    prompt: int
    completion: int
    cached: int = 0
    written: int = 0
    written_hour: int = 0
    audio: int = 0
    tier: str = ""


def read_usage(usage: Mapping[str, Any]) -> Usage | None:
    """None for what cannot be read."""
    prompt, completion = _first(usage, _PROMPT), _first(usage, _COMPLETION)
    total = count(usage, "total_tokens")
    if prompt is None or completion is None or prompt + completion == 0:
        return None
    places = [usage, *(inner for name in _DETAILS if isinstance(inner := usage.get(name), dict))]
    cached, written, hour = (_largest(places, names) for names in (_CACHED, _WRITTEN, _WRITTEN_HOUR))
    written = max(written, hour)
    if cached + written > prompt or (
        "prompt_tokens" not in usage and (cached or written) and "input_tokens_details" not in usage
    ):
        prompt += cached + written  # they stand beside it, as in Anthropic's own form
    if total is not None and total > prompt:
        completion = max(completion, total - prompt)  # reasoning that stands beside the completion is billed too
    audio = sum(_detail(usage, name, "audio_tokens") for name in ("prompt_tokens_details", "completion_tokens_details"))
    tier = usage.get("service_tier")
    return Usage(prompt, completion, cached, written - hour, hour, audio, tier if isinstance(tier, str) else "")


def count(usage: Mapping[str, Any], name: str) -> int | None:
    """A number of tokens as a provider sent it; None for what is no count."""
    value = usage.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_TOKENS:
        return None
    return int(value) if value == int(value) else None


def _first(usage: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((found for name in names if (found := count(usage, name)) is not None), None)


def _largest(places: Sequence[Mapping[str, Any]], names: tuple[str, ...]) -> int:
    """The same number may stand under several names, at the top and in the details: it is counted once."""
    return max([count(place, name) or 0 for place in places for name in names if name in place], default=0)


def _detail(usage: Mapping[str, Any], details: str, name: str) -> int:
    inner = usage.get(details)
    return (count(inner, name) or 0) if isinstance(inner, dict) else 0
