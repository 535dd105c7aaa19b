# ruff: noqa: E501 - a strategy is read best in one line
"""Answers that nobody has seen yet: status x content type x shape x usage x stream cuts, held to what must never happen.

`make fuzz` tries 20,000 of them; the run in CI is short.
"""

from __future__ import annotations

import json
import os
from typing import Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from worker.errors.catalog import JOB_FIELDS, Action, Failure
from worker.errors.classify import Broken, Reply, classify
from worker.errors.endings import Ending, worst_ending
from worker.errors.retry_after import LONGEST_RETRY_AFTER
from worker.providers.assembly import Assembly
from worker.providers.http import Spoken, read_whole
from worker.providers.openai_compatible import as_completion
from worker.providers.sse import Events
from worker.routes.prices import Price, billed_micros
from worker.routing.answer import note_of, truncated, usage_of

EXAMPLES = int(os.environ.get("FUZZ", "300"))
NOW = 1_795_000_000.0
SPOKEN = Spoken("/chat/completions", {}, {}, Assembly, as_completion)
FUZZED = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

ENDS = [
    "stop",
    "length",
    "tool_calls",
    "content_filter",
    "SAFETY",
    "network_error",
    "abort",
    "eos",
    "MAX_TOKENS",
    "",
    "what",
    None,
    7,
]
WORDS = [
    "prompt is too long", "Overloaded", "quota exceeded", "suspended", "model not found", "x" * 5000, "", "no",
    "Unsupported parameter: 'seed'", "'messages' is required", "try again in 5s", "\x1b]0;x\x07", "é" * 300, "API key expired",
]  # fmt: skip
ENDINGS = st.one_of(st.sampled_from(ENDS), st.text(max_size=12))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**6), st.floats(allow_nan=False), st.sampled_from(WORDS)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["error", "message", "code", "type", "detail", "errors", "param", "raw", "metadata", "choices", "success"]), inner, max_size=4),
    ),
    max_leaves=12,
)  # fmt: skip
USAGE_NAMES = [
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "input_tokens",
    "output_tokens",
    "prompt_cache_hit_tokens",
]
USAGES = st.one_of(
    st.none(), st.dictionaries(st.sampled_from(USAGE_NAMES), st.one_of(SCALARS, st.integers(0, 1000)), max_size=5)
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {"id": st.sampled_from(["a", "b", "c"]), "type": st.just("function"), "function": st.fixed_dictionaries({"name": st.sampled_from(["f", "g"]), "arguments": st.sampled_from(["{}", '{"a": 1}'])})}
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda call: str(call["id"]),
)  # fmt: skip
MESSAGES = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=30))},
    optional={
        "tool_calls": CALLS,
        "reasoning_content": st.text(st.characters(codec="utf-8"), min_size=1, max_size=10),
        "refusal": st.sampled_from(["no"]),
    },
)
STATUSES = st.sampled_from(
    [200, 200, 400, 400, 401, 402, 403, 404, 405, 408, 409, 410, 412, 413, 418, 422, 425, 429, 499, 500, 503, 524, 529]
)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "x-ratelimit-reset-requests", "x-ratelimit-remaining-requests", "ratelimit-reset"]),
    st.sampled_from(["5", "-1", "nan", "1e300", "6m0s", "0", "soon", "1795000030000"]),
    max_size=3,
)


def completion(message: Any, finish: Any, usage: Any) -> dict[str, Any]:
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage,
    }


def judged(answer: Reply | Broken) -> Failure | None:
    failure = classify(answer, NOW)
    if failure is not None:
        assert failure.retry_after is None or 0 <= failure.retry_after <= LONGEST_RETRY_AFTER
        assert failure.cooldown >= 0
        assert len(failure.detail) <= 4000
    return failure


@FUZZED
@given(status=STATUSES, body=st.one_of(JSON, st.builds(completion, MESSAGES, ENDINGS, USAGES)), headers=HEADERS)
def test_no_body_breaks_us_or_is_taken_for_more_than_it_is(status: int, body: Any, headers: dict[str, str]) -> None:
    answer = read_whole(status, headers, json.dumps(body).encode(), [], SPOKEN)
    failure = judged(answer)
    note(repr(failure))
    if failure is None:
        assert isinstance(answer, Reply) and answer.status == 200
        ending = worst_ending(answer.body["choices"])
        assert ending in (Ending.GOOD, Ending.CUT, Ending.UNNAMED)  # never done with an end that is unknown,
        assert truncated(answer.body) is (ending is Ending.CUT)  # nor with a cut one that is not marked
        assert bool(note_of(answer)) is (ending is not Ending.GOOD)
    elif failure.action is Action.REJECT:
        assert status in (200, 400, 405, 410, 412, 418, 422, 425, 499)
        assert any(name in json.dumps(body) for name in JOB_FIELDS)  # only a field of the job makes it the job's fault


@FUZZED
@given(raw=st.binary(max_size=300), status=STATUSES, events=st.booleans())
def test_no_bytes_break_us(raw: bytes, status: int, events: bool) -> None:
    judged(read_whole(status, {}, b"data: " + raw + b"\n\n" if events else raw, [], SPOKEN))


@FUZZED
@given(usage=USAGES)
def test_a_usage_that_cannot_be_read_is_never_free(usage: Any) -> None:
    answer = Reply(200, {}, completion({"role": "assistant", "content": "x"}, "stop", usage))
    read = usage_of(answer)
    micros = billed_micros(Price(input=1, output=10), read) if read else None
    assert micros is None or micros > 0


@FUZZED
@given(
    message=MESSAGES,
    finish=st.sampled_from([*ENDS[:9], "what"]),
    cut=st.integers(1, 40),
    done=st.booleans(),
    usage=USAGES,
)
def test_whole_and_streamed_are_the_same(
    message: dict[str, Any], finish: str, cut: int, done: bool, usage: Any
) -> None:
    """A stream of the same message, in chunks and reads of any size, comes to the same."""
    whole = read_whole(200, {}, json.dumps(completion(message, finish, usage)).encode(), [], SPOKEN)
    streamed = read_whole(200, {}, _as_stream(message, finish, usage, cut, done), [], SPOKEN)
    one, other = judged(whole), judged(streamed)
    assert (one and one.code) == (other and other.code)
    if one is None:
        assert isinstance(whole, Reply) and isinstance(streamed, Reply)
        kept = {name: value for name, value in whole.body["choices"][0]["message"].items() if value not in (None, "")}
        other_kept = streamed.body["choices"][0]["message"].items()
        assert kept == {name: value for name, value in other_kept if value not in (None, "")}
        assert usage_of(whole) == usage_of(streamed)


def _as_stream(message: dict[str, Any], finish: str, usage: Any, cut: int, done: bool) -> bytes:
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]
    for name in ("reasoning_content", "content", "refusal"):
        if (text := message.get(name)) is not None:
            deltas += [{name: text[at : at + cut]} for at in range(0, len(text), cut)] or [{name: ""}]
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        head: dict[str, Any] = {"index": index, **call, "function": {**function, "arguments": ""}}
        deltas.append({"tool_calls": [head]})
        arguments = function["arguments"]
        for at in range(0, len(arguments), cut):
            piece = {"index": index, "function": {"arguments": arguments[at : at + cut]}}
            deltas.append({"tool_calls": [piece]})
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    chunks.append({"choices": [], "usage": usage})
    raw = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    return raw + (b"data: [DONE]\n\n" if done else b"")


def _event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


TROUBLE = {"message": "upstream broke", "code": 503}
ERRORS = [  # forms in which gateways put an error into a stream
    _event(error=TROUBLE),
    _event(error="upstream broke"),
    _event(**TROUBLE),
    _event(detail="upstream broke"),
    _event(errors=[TROUBLE]),
    _event(success=False, msg="upstream broke"),
    _event(base_resp={"status_code": 1013, "status_msg": "upstream broke"}),
    _event(choices=[{"index": 0, "delta": {}, "error": TROUBLE}]),
    _event(choices=[], x_groq={"error": "upstream broke"}),
    _event(internalServerException={"message": "upstream broke"}),
    b"data: [" + json.dumps({"error": TROUBLE}).encode() + b"]\n\n",
    b"event: error\ndata: upstream broke\n\n",
    b"event: error\r\ndata: " + json.dumps(TROUBLE).encode() + b"\r\n\r\n",
    b"error: " + json.dumps(TROUBLE).encode() + b"\n\n",
    json.dumps({"error": TROUBLE}).encode() + b"\n\n",
    json.dumps({"error": TROUBLE}, indent=1).encode() + b"\n\n",
    b"<html><title>502 Bad Gateway</title></html>\n\n",
    b"data: [ERROR] upstream broke\n\n",
]


@FUZZED
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=9), max_size=4),
    error=st.sampled_from(ERRORS),
    after=st.booleans(),
    done=st.booleans(),
    size=st.integers(1, 60),
)
def test_an_error_in_any_form_ends_a_stream(texts: list[str], error: bytes, after: bool, done: bool, size: int) -> None:
    """However its bytes are cut, half an answer before an error is never an answer."""
    said = [_event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}]) for text in texts]
    more = [_event(choices=[{"index": 0, "delta": {"content": "more"}, "finish_reason": None}])] if after else []
    raw = b"".join([*said, error, *more, b"data: [DONE]\n\n" if done else b""])
    assembly, events = Assembly(), Events()
    for at in range(0, len(raw), size):
        for data in events.feed(raw[at : at + size]):
            assembly.add(data)
    for data in events.end():
        assembly.add(data)
    assert assembly.error is not None or not assembly.whole
