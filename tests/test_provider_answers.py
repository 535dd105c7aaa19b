# ruff: noqa: E501 - a case is read best in one line
"""Answers as providers and gateways really send them, as exact bytes over real HTTP: what each means, by kind.

The kinds: A how an answer ended, B what is not the job's fault, D a context that is too long, F where the words are, G
money, H answers that are not plain text, I streams and bytes, J parameters. Those of conversations (C) and of Anthropic (E)
are in test_conversations.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from producer.job import JobResult, JobStatus
from tests.support.raw_provider import events, raw_provider, reply
from worker.errors.catalog import Action, Breaker, Failure, Scope
from worker.errors.classify import Broken, Reply, classify
from worker.providers import ProviderRequest, Providers
from worker.routes.prices import Price, billed_micros
from worker.routes.route import Route
from worker.routes.schema import RouteEntry
from worker.routing.answer import truncated

NOW = 1_795_000_000.0
LOOP = asyncio.Runner()  # with one client for all cases: each client reads the certificates of all authorities
USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
HALF = "Half of what I"


def completion(finish: Any = "stop", usage: Any = USAGE, **message: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "whole answer", **message}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}


def chunk(finish: Any = None, **delta: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


LAST = {"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": USAGE}


@dataclass
class Met:
    """What one call came to."""

    answer: Reply | Broken
    failure: Failure | None
    asked: list[dict[str, Any]] = field(default_factory=list)

    @property
    def body(self) -> dict[str, Any]:
        assert self.failure is None, self.failure
        assert isinstance(self.answer, Reply)
        body: dict[str, Any] = self.answer.body
        return body

    @property
    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = self.body["choices"][0]["message"]
        return message


@cache
def client() -> Providers:
    return Providers(4)


@pytest.fixture(autouse=True, scope="module")
def closed() -> Iterator[None]:
    yield
    LOOP.run(client().close())
    LOOP.close()


def met(answer: bytes, *, streams: bool = False, **body: Any) -> Met:
    """One call to a provider that sends these bytes."""
    sent = {"messages": [{"role": "user", "content": "Summarise the call."}], **body}

    with raw_provider(answer) as provider:
        entry = RouteEntry(provider="p", model="m", base_url=provider.url)
        route = Route("p/m", "hot", entry, provider.url)
        request = ProviderRequest(route, "", sent, "key", 5.0, first_token_seconds=2.0 if streams else None)
        answered = LOOP.run(client().complete(request))
        return Met(answered, classify(answered, NOW), provider.asked)


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **more}}


# A: how an answer ended, whole and streamed alike

ENDS = [
    *((finish, "refused") for finish in ("content_filter", "content_filter: SAFETY", "SAFETY", "sensitive", "refusal")),
    *(
        (finish, "refused")
        for finish in ("RECITATION", "PROHIBITED_CONTENT", "guardrail_intervened", "FinishReason.SPII")
    ),
    *(
        (finish, "failed")
        for finish in ("insufficient_system_resource", "network_error", "abort", "error", "cancelled")
    ),
    *((finish, "failed") for finish in ("MALFORMED_FUNCTION_CALL", "timeout", "engine_overloaded")),
    *((finish, "unknown") for finish in ("whatever_comes_next", "OTHER", 7)),
    *((finish, "cut") for finish in ("length", "model_length", "MAX_TOKENS", "max_tokens", "max_output_tokens")),
    *((finish, "cut") for finish in ("model_context_window_exceeded", "Max-Tokens")),
    *((finish, "good") for finish in ("stop", "STOP", "eos", "end_turn", "stop_sequence", "COMPLETE", "eos_token")),
]


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("finish", "ended"), ENDS)
def test_a_how_an_answer_ended(finish: Any, ended: str, streams: bool) -> None:
    whole = reply(completion(finish, content=HALF))
    found = met(events(chunk(content=HALF), chunk(finish), LAST) if streams else whole, streams=streams)
    if ended in ("good", "cut"):
        assert found.message["content"] == HALF
        assert truncated(found.body) is (ended == "cut")
        return
    assert found.failure is not None
    assert found.failure.action is (Action.REFUSE if ended == "refused" else Action.FAILOVER)
    assert found.failure.code == {"refused": "content_filter", "failed": "bad_gateway", "unknown": "unknown_end"}[ended]
    assert str(finish) in found.failure.detail


def test_a_refusal_needs_no_message() -> None:
    body = completion("content_filter: PROHIBITED_CONTENT")
    del body["choices"][0]["message"]
    failure = met(reply(body)).failure
    assert failure is not None and failure.action is Action.REFUSE


# B: what is not the job's fault

BILLING, NO_MODEL = ("billing", Scope.ACCOUNT), ("no_such_model", Scope.ROUTE)
NOT_THE_JOBS = [
    (reply(error("Account acme is suspended, possibly due to reaching the monthly spending limit or failure to pay past invoices.", code="PRECONDITION_FAILED"), 412), *BILLING),
    (reply({"error": {"code": "Arrearage", "message": "Access denied, please make sure your account is in good standing."}}, 400), *BILLING),
    (reply(error("Your organization has been deactivated. Please contact support."), 400), *BILLING),
    (reply(error("Insufficient balance. Please recharge."), 400), *BILLING),
    (reply({"status": 400, "title": "Bad Request", "detail": "Function id 'f00d': DEGRADED function cannot be invoked"}, 400, "application/problem+json"), *NO_MODEL),
    (reply(error("litellm.BadRequestError: You passed in model=x. There are no healthy deployments for this model."), 400), *NO_MODEL),
    (reply(error("Model m is currently loading"), 400), *NO_MODEL),
    (reply([error("API key expired. Please renew the API key.")], 400), "unauthorized", Scope.ACCOUNT),
    (reply({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 400), "overloaded", Scope.ROUTE),
    (reply({"error": {"message": "slow down", "code": 429}}, 400), "rate_limited", Scope.ROUTE),
    (reply({"error": {"message": "slow down", "type": "rate_limit_error"}}), "rate_limited", Scope.ROUTE),
    (reply({"error": {"message": "You exceeded your monthly quota", "code": None}}, 403), "quota", Scope.ACCOUNT),
    *((reply(b"", status, "text/plain"), "client_error", Scope.ROUTE) for status in (405, 412, 421, 423, 425, 499)),
    (reply(b"", 410, "text/plain"), *NO_MODEL),
    (reply(b"nope", 400, "text/plain"), "bad_request", Scope.ROUTE),
    (reply(b"<html><head><title>524: A timeout occurred</title></head></html>", 524, "text/html"), "gateway_timeout", Scope.ROUTE),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "code", "scope"), NOT_THE_JOBS)
def test_b_what_is_not_the_jobs_fault_goes_elsewhere(answer: bytes, code: str, scope: Scope) -> None:
    failure = met(answer).failure
    assert failure is not None
    assert (failure.code, failure.scope) == (code, scope)
    assert failure.action not in (Action.REJECT, Action.REFUSE)


@pytest.mark.parametrize(
    ("body", "action"),
    [
        (
            error("Invalid type for 'messages[0].content': expected a string", param="messages[0].content"),
            Action.REJECT,
        ),
        (error("messages: at least one message is required"), Action.REJECT),
        (
            {"detail": [{"loc": ["body", "tools", 0, "function"], "msg": "field required", "type": "missing"}]},
            Action.REJECT,
        ),
        (error("something that nobody has ever seen"), Action.ELSEWHERE),
        ({"message": "no"}, Action.ELSEWHERE),
    ],
)
def test_b_only_a_named_field_makes_it_the_jobs_fault(body: Any, action: Action) -> None:
    for status in (400, 422):
        failure = met(reply(body, status)).failure
        assert failure is not None and (failure.action, failure.breaker) == (action, Breaker.NEUTRAL)


# D: a context that is too long, in anybody's words; F: wherever they stand

TOO_LONG = [
    "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
    "the request exceeds the available context size. try increasing the context size or enable context shift",
    "Input is too long for requested model.",
    "Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192",
    "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 98304]",
    "input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000, decrease input length or `max_tokens`",
    "This model's maximum context length is 128000 tokens. However, your messages resulted in 140012 tokens.",
    "prompt is too long: 210000 tokens > 200000 maximum",
    "too many tokens: total number of tokens in this request cannot exceed 4081",
    "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens",
]


@pytest.mark.parametrize("words", TOO_LONG)
@pytest.mark.parametrize(
    "shape",
    [
        lambda words: reply(error(words), 400),
        lambda words: reply({"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": json.dumps({"error": {"message": words}})}}}, 400),
        lambda words: reply({"errors": [{"message": f"AiError: {words}", "code": 5021}], "success": False, "result": {}}, 400),
        lambda words: reply({"detail": words}, 400),
        lambda words: reply(words.encode(), 400, "text/plain"),
        lambda words: reply({"error": words}),
        lambda words: events({"error": {"message": words}}),
    ],
    ids=["error", "metadata.raw", "errors", "detail", "text", "in a 200", "in a stream"],
)  # fmt: skip
def test_d_a_context_that_is_too_long(words: str, shape: Callable[[str], bytes]) -> None:
    failure = met(shape(words), streams=True).failure
    assert failure is not None
    assert (failure.code, failure.action, failure.breaker) == ("context_length", Action.LARGER, Breaker.NEUTRAL)
    assert words[:40].replace("`", "") in failure.detail.replace("`", "")


def test_f_a_class_name_says_it_where_the_words_do_not() -> None:
    words = "litellm.BadRequestError: litellm.ContextWindowExceededError: CustomException - input is over the limit."
    failure = met(reply(error(words, code="400"), 400)).failure
    assert failure is not None and failure.code == "context_length"


def test_f_a_filter_inside_metadata_is_a_refusal() -> None:
    raw = json.dumps(
        {"error": {"message": "Invalid prompt: your prompt was flagged as potentially violating our policy."}}
    )
    failure = met(
        reply({"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw}}}, 400)
    ).failure
    assert failure is not None and failure.action is Action.REFUSE


def test_f_the_words_reach_the_operator_cut_and_clean() -> None:
    failure = met(reply(b"<html><title>502 Bad\x1b]0;X\x07 Gateway</title>" + b"x" * 100_000, 502, "text/html")).failure
    assert failure is not None
    assert failure.detail.startswith("502 Bad") and len(failure.detail) <= 4000 and failure.detail.isprintable()


# J: parameters, in any casing


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"code": "Client specified an invalid argument", "error": "Argument not supported on this model: presencePenalty"}, "presence_penalty"),
        (error("`temperature` and `top_p` cannot both be specified for this model. Please use only one."), "top_p"),
        (error("Unsupported parameter: 'seed' is not supported with this model."), "seed"),
        ({"error": {"message": "Provider returned error", "metadata": {"raw": json.dumps(error("Unsupported value: 'temperature'", code="unsupported_value", param="temperature"))}}}, "temperature"),
        (error("Invalid JSON payload received. Unknown name \"logitBias\": Cannot find field."), "logit_bias"),
        (error("Additional properties are not allowed ('store' was unexpected)"), "store"),
    ],
)  # fmt: skip
def test_j_a_parameter_that_is_not_known(body: Any, parameter: str) -> None:
    for status in (400, 422):
        failure = met(reply(body, status)).failure
        assert failure is not None and (failure.action, failure.parameter) == (Action.DROP, parameter)


# K: limits


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (reply(error("slow"), 429, x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests="6m0s"), 360.0),
        (reply(error("slow"), 429, x_ratelimit_reset=str(int((NOW + 30) * 1000))), 30.0),
        (reply(error("slow"), 429, ratelimit_remaining="0", ratelimit_reset="12"), 12.0),
        (reply({"error": {"message": "slow", "metadata": {"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int((NOW + 45) * 1000))}}}}, 429), 45.0),
        (reply({"error": {"message": "slow", "retry_after": 9}}, 429), 9.0),
        (reply(error("Too many requests, please wait 2 minutes."), 429), 120.0),
    ],
)  # fmt: skip
def test_k_a_named_reset_is_heeded(answer: bytes, seconds: float) -> None:
    failure = met(answer).failure
    assert failure is not None and failure.code == "rate_limited"
    assert failure.retry_after == pytest.approx(seconds)


# G: money

PRICE = Price(input=1, output=10, cached_input=0.1, cache_write=1.25)


@pytest.mark.parametrize(
    ("usage", "micros"),
    [
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135, "completion_tokens_details": {"reasoning_tokens": 94}}, 1062),
        ({"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010, "prompt_cache_hit_tokens": 900}, 290),
        ({"prompt_tokens": 1000, "completion_tokens": 0, "prompt_tokens_details": {"cache_creation_tokens": 1000}, "cache_creation_input_tokens": 1000}, 1250),
        ({"prompt_tokens": 50, "completion_tokens": 94, "total_tokens": 144, "completion_tokens_details": {"reasoning_tokens": 90}}, 990),
        ({"prompt_tokens": 1000, "completion_tokens": 0, "prompt_tokens_details": {"cache_write_tokens": 1000, "cache_write_1h_tokens": 1000}}, 2000),
        ({"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 900}, 290),
        ({"prompt_tokens": 20, "completion_tokens": 5, "service_tier": "priority"}, 140),
        ({"prompt_tokens": 20, "completion_tokens": 5, "prompt_tokens_details": {"audio_tokens": 15}}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
        ({"prompt_tokens": None, "completion_tokens": 5}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_g_usage_is_read_by_what_its_numbers_say(usage: dict[str, Any], micros: int | None) -> None:
    assert billed_micros(PRICE, usage) == micros


# H: answers that are not plain text


@pytest.mark.parametrize(
    ("message", "finish"),
    [
        ({"content": None, "reasoning_content": "let me think about the"}, "length"),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "the answer"}]}, "stop"),
        ({"content": None, "function_call": {"name": "f", "arguments": "{}"}}, "function_call"),
        ({"content": None, "audio": {"id": "a", "data": "AAAA", "transcript": "hello"}}, "stop"),
        ({"content": None, "images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}, "stop"),
    ],
)  # fmt: skip
def test_h_an_answer_that_is_not_plain_text(message: dict[str, Any], finish: str) -> None:
    assert met(reply(completion(finish, **message))).message == {"role": "assistant", **message}


def test_h_nothing_at_all_is_no_answer() -> None:
    failure = met(reply(completion(content=None))).failure
    assert failure is not None and failure.code == "empty_answer"


# I: streams and bytes

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"city": "Graz"}'}}


@pytest.mark.parametrize(
    "answer",
    [
        events(chunk(content="whole "), chunk(content="answer"), LAST),  # no finish_reason, then [DONE]
        events(chunk(content="whole answer"), b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n', done=False),
        events(b"\xef\xbb\xbf", chunk(content="whole answer"), chunk("stop"), LAST),
        events(b": keep-alive\n\n", chunk(content="whole answer"), chunk("stop")),
        events(chunk(content="whole answer"), chunk("stop"), content_type="application/json"),
        reply(completion(), content_type="text/event-stream"),
        reply(b"\xef\xbb\xbf" + json.dumps(completion()).encode()),
        reply(completion(), x_debug="a" * 10_000),
    ],
    ids=["no finish", "no last blank line", "BOM", "comments", "mislabelled", "JSON as a stream", "BOM before JSON", "large header"],
)  # fmt: skip
@pytest.mark.parametrize("streams", [False, True], ids=["whole asked", "stream asked"])
def test_i_bytes_say_what_they_are(answer: bytes, streams: bool) -> None:
    assert met(answer, streams=streams).message["content"] == "whole answer"


def test_i_arguments_that_are_objects_are_made_text() -> None:
    as_object = {**CALL, "function": {"name": "f", "arguments": {"city": "Graz"}}}
    whole = met(reply(completion("tool_calls", content=None, tool_calls=[as_object])))
    streamed = met(events(chunk(tool_calls=[{"index": 0, **as_object}]), chunk("tool_calls"), LAST), streams=True)
    assert whole.message["tool_calls"] == streamed.message["tool_calls"] == [CALL]


def test_i_calls_are_told_apart_and_their_fields_kept() -> None:
    signed = {"extra_content": {"google": {"thought_signature": "SIG"}}}
    first, second = {**CALL, **signed}, {**CALL, "id": "call_2"}
    streamed = met(events(chunk(tool_calls=[first]), chunk(tool_calls=[second]), chunk("stop"), LAST), streams=True)
    assert streamed.message["tool_calls"] == [first, second]
    bare = [{"type": "function", "function": {"name": name, "arguments": "{}"}} for name in ("f", "g")]
    nameless = met(events(*(chunk(tool_calls=[each]) for each in bare), chunk("tool_calls")), streams=True)
    calls = nameless.message["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["f", "g"]
    assert len({call["id"] for call in calls if call["id"].startswith("call_")}) == 2


def test_i_what_is_not_known_is_kept_and_joined() -> None:
    pieces = [
        chunk(reasoning_details=[{"index": 0, "type": "reasoning.text", "text": "a"}]),
        chunk(reasoning_details=[{"index": 0, "text": "b"}], audio={"id": "x", "data": "AA"}),
        chunk(content="hi", audio={"data": "BB", "transcript": "h"}),
        chunk("stop"),
    ]
    message = met(events(*pieces, LAST), streams=True).message
    assert message["reasoning_details"] == [{"index": 0, "type": "reasoning.text", "text": "ab"}]
    assert message["audio"] == {"id": "x", "data": "AABB", "transcript": "h"}


def test_i_a_broken_byte_leaves_a_mark_and_no_hole() -> None:
    raw = json.dumps(chunk(content="100€ ")).encode().replace(b"\\u20ac", b"\xe2\x82")
    streamed = met(
        events(chunk(content="It is "), b"data: " + raw + b"\n\n", chunk(content="for two."), chunk("stop")),
        streams=True,
    )
    assert streamed.message["content"] == "It is 100\ufffd for two."


def test_i_a_cut_stream_is_no_answer() -> None:
    answer = met(events(chunk(content=HALF), done=False), streams=True)
    assert answer.failure is not None and answer.failure.code == "stream_cut"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<think>let me see</think>\nrain", "rain"),
        ("let me see\n</think>\n\nrain", "rain"),
        ("To close it, write </think>", "To close it, write </think>"),
        ('{"tag":"</think>","x":1}', '{"tag":"</think>","x":1}'),
        ("<reasoning>2+2</reasoning><answer>4</answer>", "<reasoning>2+2</reasoning><answer>4</answer>"),
        ([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "rain"}], "rain"),
        ({"answer": 42}, '{"answer": 42}'),
    ],
)
def test_h_thinking_before_the_answer_is_not_its_text(content: Any, text: str) -> None:
    result = JobResult(job_id="x", status=JobStatus.DONE, completion=met(reply(completion(content=content))).body)
    assert result.text == text
