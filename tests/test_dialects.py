"""What each provider is sent of a chat body, and how its answer comes back: the rows of docs/dialects.md."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic
from anthropic.types import Message
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from pydantic import TypeAdapter

from ops.simulators.provider import Control
from worker.errors.classify import Broken, Reply, classify
from worker.providers import ProviderRequest, Providers
from worker.providers.anthropic.answer import completion_of
from worker.providers.anthropic.request import request_of
from worker.routes.api_keys import Key
from worker.routes.parameters import LISTS, NATIVE, essential, fitted, of_host
from worker.routes.route import Route
from worker.routes.schema import RouteEntry

DOCUMENT = (Path(__file__).parent.parent / "docs" / "dialects.md").read_text()
REQUEST = TypeAdapter(MessageCreateParamsNonStreaming)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
CALLED = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Lisbon"}'}}
NEWER, OLDER = "max_tokens as max_completion_tokens", "max_completion_tokens as max_tokens"
USER = {"role": "user", "content": "How is the weather in Lisbon?"}


def sent(**body: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the Messages API gets, held to the types of its own SDK."""
    request, told = request_of({"messages": [USER], **body}, "claude-x", None, stream=False, caching=True)
    REQUEST.validate_python({name: value for name, value in request.items() if name != "stream"})
    return request, told


@pytest.fixture
def ask(providers: Control) -> Any:
    """One call of a native route, whole or streamed."""

    def ask(body: dict[str, Any], *, streams: bool = False, key: str = "sk-test", **fields: Any) -> Reply | Broken:
        entry = RouteEntry(provider="anthropic", model="claude-x", base_url="x", api="anthropic", **fields)
        route = Route("a", "hot", entry, providers.base_url("a"), keys=(Key(key, "test"),))

        async def go() -> Reply | Broken:
            client = Providers(2)
            try:
                return await client.complete(
                    ProviderRequest(route, key, {"messages": [USER], **body}, "k", 10, 5 if streams else None)
                )
            finally:
                await client.close()

        return asyncio.run(go())

    return ask


def test_instructions_go_to_the_top_and_tools_answers_to_the_user() -> None:
    request, told = sent(
        messages=[
            {"role": "system", "content": "Be brief."},
            USER,
            {"role": "assistant", "content": None, "tool_calls": [CALLED]},
            {"role": "tool", "tool_call_id": "c1", "content": "Sunny"},
            {"role": "user", "content": "And tomorrow?"},
        ],
        tools=[WEATHER],
    )  # fmt: skip
    assert request["system"] == [{"type": "text", "text": "Be brief."}]
    assert [turn["role"] for turn in request["messages"]] == ["user", "assistant", "user"]
    assert request["messages"][1]["content"] == [
        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Lisbon"}}
    ]
    assert [block["type"] for block in request["messages"][2]["content"]] == ["tool_result", "text"]
    assert request["tools"][0]["input_schema"]["required"] == ["city"]
    assert told == ()


@pytest.mark.parametrize(
    ("choice", "native"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "weather"}}, {"type": "tool", "name": "weather"}),
    ],
)
def test_the_choice_of_tools(choice: Any, native: Any) -> None:
    assert sent(tools=[WEATHER], tool_choice=choice)[0]["tool_choice"] == native


def test_one_tool_at_a_time() -> None:
    request, _ = sent(tools=[WEATHER], parallel_tool_calls=False)
    assert request["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


def test_a_schema_goes_to_output_config_with_closed_objects() -> None:
    request, told = sent(response_format={"type": "json_schema", "json_schema": {"name": "w", "schema": SCHEMA}})
    form = request["output_config"]["format"]
    assert (form["type"], form["schema"]["additionalProperties"]) == ("json_schema", False)
    assert told == ()


def test_json_without_a_schema_is_asked_for_in_words_and_told() -> None:
    request, told = sent(response_format={"type": "json_object"})
    assert "one JSON object" in request["system"][0]["text"]
    assert told == ("response_format as an instruction",)


def test_images_inline_and_by_address() -> None:
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    ]
    blocks = sent(messages=[{"role": "user", "content": content}])[0]["messages"][0]["content"]
    assert blocks[1]["source"] == {"type": "base64", "media_type": "image/png", "data": "aGk="}
    assert blocks[2]["source"] == {"type": "url", "url": "https://example.com/a.png"}


@pytest.mark.parametrize(
    ("body", "field", "value", "told"),
    [
        ({}, "max_tokens", 4096, ()),
        ({"max_completion_tokens": 50}, "max_tokens", 50, ()),
        ({"max_tokens": 60}, "max_tokens", 60, ()),
        ({"stop": "END"}, "stop_sequences", ["END"], ()),
        ({"user": "u1"}, "metadata", {"user_id": "u1"}, ()),
        ({"temperature": 0.3, "top_p": 0.9}, "top_p", None, ("temperature", "top_p")),
        ({"reasoning_effort": "high"}, "output_config", {"effort": "high"}, ()),
        ({"service_tier": "flex"}, "service_tier", None, ("service_tier",)),
    ],
)
def test_parameters_have_other_names_limits_or_none(body: Any, field: str, value: Any, told: Any) -> None:
    request, dropped = sent(**body)
    assert (request.get(field), dropped) == (value, told)


@pytest.mark.parametrize(("words", "marked"), [(5000, True), (10, False)])
def test_stable_blocks_are_marked_for_the_cache_where_they_are_long_enough(words: int, marked: bool) -> None:
    request, _ = sent(messages=[{"role": "system", "content": "word " * words}, USER])
    assert ("cache_control" in request["system"][0]) is marked
    unmarked, _ = request_of(
        {"messages": [{"role": "system", "content": "word " * words}, USER]}, "m", None, stream=False, caching=False
    )
    assert "cache_control" not in unmarked["system"][0]


@pytest.mark.parametrize("streams", [False, True])
def test_a_text_a_tool_call_and_json_come_back_as_a_chat_completion(ask: Any, streams: bool) -> None:
    text = ask({}, streams=streams)
    assert classify(text, 0) is None
    assert text.body["choices"][0]["message"]["content"] == "You said: How is the weather in Lisbon?"
    assert text.body["usage"]["prompt_tokens"] > 0
    called = ask({"tools": [WEATHER], "tool_choice": "required"}, streams=streams)
    choice = called.body["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    function = choice["message"]["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("weather", {"city": "Lisbon"})
    form = {"type": "json_schema", "json_schema": {"name": "w", "schema": SCHEMA}}
    answered = ask({"response_format": form}, streams=streams)
    assert json.loads(answered.body["choices"][0]["message"]["content"]) == {"city": "Lisbon", "days": 7}


def test_the_simulators_messages_are_those_of_the_official_sdk(providers: Control, ask: Any) -> None:
    """Else the tests here would prove a dialect that nobody speaks."""
    url = providers.base_url("a").removesuffix("/v1")
    client = Anthropic(base_url=url, api_key="sk-test", max_retries=0)
    whole = client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
    assert (whole.content[0].text, whole.stop_reason) == ("You said: hi", "end_turn")  # type: ignore[union-attr]
    with client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]) as stream:
        assert stream.get_final_text() == "You said: hi"
        assert stream.get_final_message().usage.output_tokens > 0


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ({"status": 529}, "overloaded"),
        ({"status": 429, "retry_after": "7"}, "rate_limited"),
        ({"keys": ["another"]}, "unauthorized"),
        ({"status": 400, "error": {"message": "prompt is too long: 210000 tokens > 200000 maximum"}}, "context_length"),
        ({"finish_reason": "content_filter"}, "content_filter"),
        ({"fault": "cut"}, {"whole": "reset", "streamed": "stream_cut"}),
    ],
)
def test_what_goes_wrong_natively_is_classified_as_ever(
    providers: Control, ask: Any, behaviour: dict[str, Any], code: Any, streams: bool
) -> None:
    providers.behave("a", **behaviour)
    failure = classify(ask({}, streams=streams), 0)
    expected = code["streamed" if streams else "whole"] if isinstance(code, dict) else code
    assert failure is not None
    assert failure.code == expected


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [WEATHER], "tool_choice": {"type": "allowed_tools"}},
        {"tools": ["weather"], "tool_choice": "auto", "messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        {"messages": [{"role": "system", "content": "only this"}]},
        {"messages": [{**USER}, {"role": "assistant", "tool_calls": [{"id": "x"}]}]},
        {"messages": [{"role": "user", "content": 7}]},
    ],
)
def test_a_body_without_a_counterpart_goes_elsewhere_and_is_not_held_against_the_route(
    providers: Control, ask: Any, body: dict[str, Any]
) -> None:
    failure = classify(ask(body), 0)
    assert failure is not None
    assert (failure.code, failure.breaker, failure.action) == ("not_supported", "neutral", "elsewhere")
    assert providers.account("a")["asked"] == 0


def test_a_refusal_and_cached_tokens_of_a_message() -> None:
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None,
        "content": [{"type": "text", "text": "I cannot help with that."}], "stop_reason": "refusal",
        "usage": {"input_tokens": 5, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 10, "output_tokens": 4},
    }  # fmt: skip
    Message.model_validate(message)
    completion = completion_of(message)
    assert completion["choices"][0]["message"]["refusal"] == "I cannot help with that."
    assert completion["usage"]["prompt_tokens"] == 105
    assert completion["usage"]["prompt_tokens_details"] == {"cached_tokens": 90, "cache_write_tokens": 10}


@pytest.mark.parametrize(
    ("provider", "body", "as_sent", "told"),
    [
        ("openai", {"max_tokens": 5, "seed": 1}, {"max_completion_tokens": 5, "seed": 1}, (NEWER,)),
        ("google", {"seed": 1, "store": True, "top_p": 1}, {"top_p": 1}, ("seed", "store")),
        ("mistral", {"max_completion_tokens": 5, "store": True}, {"max_tokens": 5}, (OLDER, "store")),
        ("mistral", {"seed": 3}, {"random_seed": 3}, ("seed as random_seed",)),
        ("groq", {"logprobs": True, "seed": 1}, {"seed": 1}, ("logprobs",)),
        ("deepseek", {"max_completion_tokens": 5, "user": "u"}, {"max_tokens": 5}, (OLDER, "user")),
        ("anthropic", {"seed": 1, "max_tokens": 5}, {"max_tokens": 5}, ("seed",)),
        ("openai", {"seed": None}, {"seed": None}, ()),
        ("google", {"seed": None}, {}, ()),
        ("groq", {"messages": [{**USER, "name": "Ana"}]}, {"messages": [USER]}, ("messages.name",)),
        ("mistral", {"messages": [{**USER, "reasoning_content": "hm"}]}, {"messages": [USER]}, ("messages.reasoning_content",)),
        ("openai", {"messages": [{**USER, "name": "Ana"}]}, {"messages": [{**USER, "name": "Ana"}]}, ()),
    ],
)  # fmt: skip
def test_what_a_provider_does_not_know_goes_by_its_name_there_or_not_at_all(
    provider: str, body: dict[str, Any], as_sent: dict[str, Any], told: tuple[str, ...]
) -> None:
    assert fitted(body, LISTS[provider]) == (as_sent, told)
    assert essential(body, LISTS[provider]) == set()


def test_what_no_answer_is_right_without_keeps_a_job_from_the_route() -> None:
    assert essential({"audio": {}, "seed": 1}, NATIVE) == {"audio"}
    assert essential({"audio": {}, "seed": 1}, LISTS["google"]) == {"audio"}
    assert essential({"audio": {}}, None) == set()


def test_lists_are_for_the_providers_own_hosts() -> None:
    assert of_host("https://api.mistral.ai/v1") is LISTS["mistral"]
    assert of_host("https://gateway.example.com/v1") is None


COLUMNS = ("openai", "google", "mistral", "groq", "deepseek", "anthropic", "natively")
ROWS = re.findall(r"^\| (`.+?`) \| (.+) \|$", DOCUMENT.partition("## Tools")[0], re.MULTILINE)


@pytest.mark.parametrize(("named", "cells"), ROWS, ids=[named for named, _ in ROWS])
def test_the_table_of_parameters_says_what_is_sent(named: str, cells: str) -> None:
    """Each cell of docs/dialects.md: sent, dropped, or sent as something else."""
    values = {"temperature": 0.5, "stop": ["END"], "stream_options": {"include_usage": True}}
    for column, cell in zip(COLUMNS, cells.split(" | "), strict=True):
        for name in re.findall(r"`(\w+)`", named):
            body = {name: values.get(name, "x")}
            if column == "natively":
                body = dict(fitted(body, NATIVE)[0])
                as_sent = request_of({"messages": [USER], **body}, "m", None, stream=False, caching=False)[0]
                as_sent = {
                    field: value for field, value in as_sent.items() if field in {name, "metadata", "stop_sequences"}
                }
            else:
                as_sent = dict(fitted(body, LISTS[column])[0])
            other = re.match(r"sent as `([\w.]+)`", cell)
            expected = other[1].partition(".")[0] if other else name if cell.startswith("sent") else None
            assert list(as_sent) == ([expected] if expected else []), f"{column}: {name}"


def test_the_table_of_parameters_is_read() -> None:
    assert len(ROWS) >= 7


def test_empty_turns_are_left_out_and_thinking_that_was_cut_is_an_answer() -> None:
    request, _ = sent(messages=[USER, {"role": "assistant", "content": ""}, {"role": "user", "content": "Well?"}])
    assert [turn["role"] for turn in request["messages"]] == ["user"]
    cut = completion_of(
        {"type": "message", "content": [{"type": "thinking"}], "stop_reason": "max_tokens", "usage": {}}
    )
    assert classify(Reply(200, {}, cut), 0) is None


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("overloaded_error", "overloaded"),
        ("rate_limit_error", "rate_limited"),
        ("authentication_error", "unauthorized"),
    ],
)
def test_an_error_inside_a_stream_is_what_its_type_says(kind: str, code: str) -> None:
    failure = classify(Reply(200, {}, {"type": "error", "error": {"type": kind, "message": "x"}}), 0)
    assert failure is not None
    assert failure.code == code
