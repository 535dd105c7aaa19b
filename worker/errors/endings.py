"""How an answer ended: what each `finish_reason` means. A closed list; what is not on it is judged on the safe side.

Sources: the API references of OpenAI, Anthropic, Google, Mistral, Zhipu, DeepSeek, vLLM, SGLang and TGI, and the issues of
gateways, as of November 2026. docs/failures.md holds the same table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any


class Ending(Enum):
    """Ordered by how bad it is: an answer with several choices ends as the worst of them."""

    GOOD = 0  # the model said what it wanted to say
    UNNAMED = 1  # no finish_reason came, though the answer came whole
    CUT = 2  # a limit of tokens ended it: an answer, but not a whole one
    REFUSED = 3  # a filter or the model itself refused: a matter for a person
    FAILED = 4  # the provider failed in the middle
    UNKNOWN = 5  # nobody here knows the word: taken for a failure of the provider


GOOD = frozenset(
    (
        *("stop", "end_turn", "stop_sequence", "stop_token", "stop_words", "eos", "eos_token", "end", "end_of_text"),
        *("tool_calls", "tool_call", "tool_use", "function_call", "function_calls", "call_tool"),
        *("complete", "completed", "finished", "done", "normal", "user_stop", "stop_criteria"),
    )
)
CUT = frozenset(
    (
        *("length", "max_tokens", "max_token", "max_output_tokens", "max_completion_tokens", "max_length"),
        *("model_length", "model_context_window_exceeded", "context_length", "context_window_exceeded", "token_limit"),
        *("context_length_exceeded", "length_limit", "max_new_tokens", "pause_turn", "max_tokens_reached", "truncated"),
        *("error_limit", "time_limit", "compaction"),
    )
)
# Parts of a word, looked for where the word itself is not on a list.
REFUSED_PARTS = (
    *(
        "filter",
        "safety",
        "recitation",
        "refus",
        "sensitive",
        "blocklist",
        "blocked",
        "prohibited",
        "spii",
        "moderation",
    ),
    *("guardrail", "policy", "harm", "unsafe", "violation", "risk", "armor", "escalation", "toxic", "jailbreak"),
)
FAILED_PARTS = (
    *("error", "resource", "network", "abort", "timeout", "time_out", "timed_out", "cancel", "overload", "malformed"),
    *("fail", "interrupt", "unexpected", "unavailable", "crash", "killed", "disconnect", "shutdown", "exception"),
    *("evict", "repetition"),
)
BROKEN_CALL = (
    "malformed",
    "function_call_filter",
    "unexpected_tool",
)  # a tool call that went wrong: no word on the job


def ending_of(finish_reason: Any) -> Ending:
    """What one `finish_reason` means, in any casing."""
    if finish_reason is None or finish_reason in ("", "null"):
        return Ending.UNNAMED
    return _of_word(finish_reason[:200]) if isinstance(finish_reason, str) else Ending.UNKNOWN


@lru_cache(maxsize=256)
def _of_word(finish_reason: str) -> Ending:
    word = re.sub(r"[\s.\-]+", "_", finish_reason.strip().lower())
    word = word.removeprefix("finish_reason_").removeprefix("finishreason_")
    if word in GOOD:
        return Ending.GOOD
    if word in CUT:
        return Ending.CUT
    if any(part in word for part in BROKEN_CALL):
        return Ending.FAILED
    if any(part in word for part in REFUSED_PARTS):
        return Ending.REFUSED
    if any(part in word for part in FAILED_PARTS):
        return Ending.FAILED
    return Ending.UNKNOWN


def worst_ending(choices: Iterable[Mapping[str, Any]]) -> Ending:
    """How an answer with these choices ended as a whole."""
    return max(map(_of_choice, choices), key=lambda ending: ending.value, default=Ending.UNNAMED)


def _of_choice(choice: Mapping[str, Any]) -> Ending:
    """A gateway's own word, unless the provider's beside it says that it was cut, refused or failed."""
    ending = ending_of(choice.get("finish_reason"))
    if (native := choice.get("native_finish_reason")) is None:
        return ending
    told = ending_of(native)
    return told if told in (Ending.CUT, Ending.REFUSED, Ending.FAILED) and told.value > ending.value else ending
