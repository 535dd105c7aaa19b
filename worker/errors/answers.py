"""Whether the body of a good status is an answer, and ended well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from producer.answer_text import is_thought, text_in
from worker.errors.catalog import EMPTY, FILTERED, MALFORMED, STATUS, UNKNOWN_END, Failure
from worker.errors.codes import CODES
from worker.errors.endings import Ending, worst_ending
from worker.errors.error_body import error_in, has_facts
from worker.humanize import one_line

_ANSWERS = ("tool_calls", "function_call", "audio", "images")  # what an answer may be instead of content


def error_of_choice(body: Any) -> Any:
    """The error that a gateway put into a choice beside half of its answer; None if there is none."""
    choices = body.get("choices") if isinstance(body, dict) else None
    found = (choice.get("error") for choice in choices if isinstance(choice, dict)) if isinstance(choices, list) else ()
    return next((error for error in found if has_facts(error)), None)


def problem_of(body: Any) -> Failure | None:
    """An answer without an error still has to be one, and to have ended well."""
    try:
        choices = list(body["choices"])
        ending = worst_ending(choices)
        messages = [choice.get("message") for choice in choices]
    except (TypeError, KeyError, AttributeError):
        return _no_answer(body)
    if not choices:
        return _no_answer(body)
    refusals = [refusal for message in messages if (refusal := _refusal_of(message))]
    if ending is Ending.UNKNOWN:
        return replace(
            UNKNOWN_END, status=200, detail=f"an end that nobody here knows: finish_reason {_ends_of(choices)}"
        )
    if ending is Ending.FAILED:
        return replace(
            STATUS[502], status=200, detail=f"the provider failed in the middle: finish_reason {_ends_of(choices)}"
        )
    if ending is Ending.REFUSED or refusals:
        said = "".join(f": {one_line(refusal, 300)}" for refusal in refusals[:1])
        return replace(
            FILTERED, status=200, detail=f"the provider refused to answer: finish_reason {_ends_of(choices)}{said}"
        )
    if ending is Ending.CUT and all(message is None or isinstance(message, dict) for message in messages):
        return None
    if not all(isinstance(message, dict) for message in messages):
        return replace(MALFORMED, status=200, detail="not a chat completion")
    if any(_says_nothing(message) for message in messages):
        return replace(EMPTY, status=200, detail="neither content nor tool calls")
    return None


def _no_answer(body: Any) -> Failure:
    """A body that is neither an answer nor, by its form, an error: its words go into the detail."""
    error = error_in(body)
    blocked = any(CODES.get(name) is FILTERED for name in error.names) or _is_filtered(body)
    if blocked:
        return replace(FILTERED, status=200, detail=error.words or "the provider's filter blocked the prompt")
    there = isinstance(body, dict) and body.get("choices") == []
    said = error.words or " ".join(error.names)
    what = "no choices" if there else "not a chat completion"
    return replace(MALFORMED, status=200, detail=f"{what}: {said}" if said else what)


def _is_filtered(body: Any) -> bool:
    """Whether Azure's filter stopped the prompt."""
    results = body.get("prompt_filter_results") if isinstance(body, dict) else None
    found = [each.get("content_filter_results") for each in results or () if isinstance(each, dict)]
    kinds = [kind for each in found if isinstance(each, dict) for kind in each.values()]
    return any(isinstance(kind, dict) and kind.get("filtered") is True for kind in kinds)


def _ends_of(choices: Sequence[Mapping[str, Any]]) -> str:
    """The words with which they ended, a provider's own after the gateway's."""
    words = ((choice.get("finish_reason"), choice.get("native_finish_reason")) for choice in choices)
    return ", ".join(
        str(ours)[:100] + (f" / {str(native)[:100]}" if native is not None else "") for ours, native in words
    )


def _refusal_of(message: Any) -> str:
    """Its words; "" where the model did not refuse."""
    if not isinstance(message, dict):
        return ""
    if refusal := message.get("refusal"):
        return str(refusal)
    content = message.get("content")
    parts = content if isinstance(content, list) else ()
    return next(
        (str(p.get("refusal") or "refused") for p in parts if isinstance(p, dict) and p.get("type") == "refusal"), ""
    )


def _says_nothing(message: Mapping[str, Any]) -> bool:
    """Whether a message has none of the things that can be an answer."""
    content = message.get("content")
    parts = content if isinstance(content, list) else ()
    if any(isinstance(part, dict) and "text" not in part and not is_thought(part.get("type")) for part in parts):
        return False  # an image, a sound
    return not text_in(content).strip() and not any(has_facts(message.get(name)) for name in _ANSWERS)
