"""The tokens of a call. Providers use different names and count cached and reasoning tokens differently; the sums show which
way.

Sources: the API references of OpenAI, Anthropic, Google, xAI, DeepSeek and Mistral, and LiteLLM's normal form, as of
November 2026. What cannot be read is None, and never zero: such a call may have been billed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.routes.tokens import MOST_TOKENS

_PROMPT = ("prompt_tokens", "input_tokens", "promptTokens", "inputTokens", "promptTokenCount", "prompt_eval_count")
_COMPLETION = (
    "completion_tokens",
    "output_tokens",
    "completionTokens",
    "outputTokens",
    "candidatesTokenCount",
    "eval_count",
)
_TOTAL = ("total_tokens", "totalTokens", "totalTokenCount")
_CACHED = (
    *("cached_tokens", "cache_read_input_tokens", "prompt_cache_hit_tokens", "cached_prompt_tokens"),
    *("cache_read_tokens", "cache_read", "cachedContentTokenCount", "cacheReadInputTokens"),
)
_WRITTEN = (
    *("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens", "cache_creation"),
    *("cacheWriteInputTokens", "cached_creation_tokens"),
)
_WRITTEN_MINUTES, _WRITTEN_HOUR = ("ephemeral_5m_input_tokens",), ("cache_write_1h_tokens", "ephemeral_1h_input_tokens")
_REASONING = ("reasoning_tokens", "thoughtsTokenCount")
_OF_PROMPT = (
    "prompt_tokens_details",
    "input_tokens_details",
    "input_token_details",
    "prompt_token_details",
    "cache_creation",
)
_OF_COMPLETION = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_OWN_PRICE = ("audio_tokens", "image_tokens")  # of what is not text; of a prompt's pictures only the audio is
_OTHER_BILLS = ("web_search_requests", "num_search_queries", "num_sources_used", "prompt_audio_seconds")


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
    """None for what cannot be read, and where more than tokens was billed: searches, seconds of sound, a price of each call."""
    prompt, completion, total = _first(usage, _PROMPT), _first(usage, _COMPLETION), _first(usage, _TOTAL)
    if completion is None and prompt is not None and total is not None and total > prompt:
        completion = total - prompt
    if not prompt or completion is None:  # no call has an empty prompt
        return None
    if _has_other_bills(usage):
        return None
    places, after = [usage, *_inside(usage, _OF_PROMPT)], _inside(usage, _OF_COMPLETION)
    cached, hour = _largest(places, _CACHED), _largest(places, _WRITTEN_HOUR)
    written = max(_largest(places, _WRITTEN), _largest(places, _WRITTEN_MINUTES) + hour)
    reasoning = _largest([usage, *after], _REASONING)
    if _are_beside(
        usage, prompt, completion, cached + written, None if total == prompt + completion + reasoning else total
    ):
        prompt += cached + written
    if total is not None and total > prompt + completion:
        completion = total - prompt  # reasoning that stands beside the completion is billed too
    elif reasoning > completion:
        completion += reasoning
    audio = _largest(places[1:], _OWN_PRICE[:1]) + sum(_largest(after, (name,)) for name in _OWN_PRICE)
    tier = usage.get("service_tier")
    return Usage(prompt, completion, cached, written - hour, hour, audio, tier if isinstance(tier, str) else "")


def _has_other_bills(usage: Mapping[str, Any]) -> bool:
    places = [usage, *(inner for inner in usage.values() if isinstance(inner, dict))]
    per_call = places[1:] and usage.get("cost")
    fee = per_call.get("request_cost") if isinstance(per_call, dict) else None
    return bool(_largest(places, _OTHER_BILLS)) or (isinstance(fee, int | float) and fee > 0)


def _are_beside(usage: Mapping[str, Any], prompt: int, completion: int, cache: int, total: int | None) -> bool:
    """Whether the cache's tokens are no part of the prompt's, as in Anthropic's own form: by the total, else by the names."""
    if cache > prompt:
        return True
    if not cache or total == prompt + completion:
        return False
    return total == prompt + completion + cache or (
        "prompt_tokens" not in usage and "input_tokens_details" not in usage
    )


def _inside(usage: Mapping[str, Any], names: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """The details of these names, and the details in them."""
    found: list[Mapping[str, Any]] = [inner for name in names if isinstance(inner := usage.get(name), dict)]
    return found + [deeper for inner in found for deeper in inner.values() if isinstance(deeper, dict)]


def count(usage: Mapping[str, Any], name: str) -> int | None:
    """A number of tokens as a provider sent it; None for what is no count."""
    value = usage.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_TOKENS:
        return None
    return int(value) if value == int(value) else None


def _first(usage: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """The first of these that is more than nothing, else a zero that was told."""
    told = None
    for name in names:
        if name in usage and (found := count(usage, name)) is not None:
            if found:
                return found
            told = 0
    return told


def _largest(places: Sequence[Mapping[str, Any]], names: tuple[str, ...]) -> int:
    """The same number may stand under several names, at the top and in the details: it is counted once."""
    largest = 0
    for place in places:
        for name in names:
            if name in place:
                largest = max(largest, count(place, name) or 0)
    return largest
