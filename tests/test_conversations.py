"""A conversation that another provider began, as the next one is sent it; and what Anthropic's own API is known to refuse.

Kinds C and E of the reports; what is left out or changed stands in `dropped`.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from worker.providers.anthropic.answer import Assembly, completion_of
from worker.providers.anthropic.request import VERSION, request_of
from worker.routes.parameters import LISTS, fitted

CALL_ID = "call_AbCdEf0123456789GhIjKlMn"
CALL = {"id": CALL_ID, "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Graz"}'}}
LOOP: list[dict[str, Any]] = [
    {"role": "user", "content": "weather?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": CALL_ID, "content": "rain"},
]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}]


def sent_to(provider: str, messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    before = copy.deepcopy(messages)
    body, dropped = fitted({"messages": messages}, LISTS[provider])
    assert messages == before  # the job's own body stays as it is
    return list(body["messages"]), dropped


# C: begun by another provider


@pytest.mark.parametrize("provider", ["deepseek", "mistral", "groq", "google", "anthropic"])
def test_c_a_developer_is_a_system_elsewhere(provider: str) -> None:
    messages, dropped = sent_to(
        provider, [{"role": "developer", "content": "Be short."}, {"role": "user", "content": "x"}]
    )
    assert [message["role"] for message in messages] == ["system", "user"]
    assert "developer as system" in dropped


def test_c_openai_keeps_its_developer() -> None:
    messages = [{"role": "developer", "content": "Be short."}, {"role": "user", "content": "x"}]
    assert sent_to("openai", messages) == (messages, ())


def test_c_ids_of_tool_calls_are_mapped_alike_on_both_sides() -> None:
    messages, dropped = sent_to("mistral", LOOP)
    sent = messages[1]["tool_calls"][0]["id"]
    assert len(sent) == 9 and sent.isalnum()
    assert messages[2]["tool_call_id"] == sent
    assert dropped == ("ids of tool calls",)


def test_c_mistral_hears_the_assistant_between_a_tool_and_the_user() -> None:
    messages, dropped = sent_to("mistral", [*LOOP, {"role": "user", "content": "and tomorrow?"}])
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant", "user"]
    assert "a turn of the assistant between a tool and the user" in dropped


def test_c_google_gets_its_word_for_calls_without_a_signature_of_its_own() -> None:
    messages, dropped = sent_to("google", LOOP)
    assert messages[1]["tool_calls"][0]["extra_content"] == {
        "google": {"thought_signature": "skip_thought_signature_validator"}
    }
    assert dropped == ("no thought signature of its own",)
    signed = {**CALL, "extra_content": {"google": {"thought_signature": "SIG"}}}
    assert sent_to("google", [LOOP[0], {**LOOP[1], "tool_calls": [signed]}, LOOP[2]])[1] == ()


@pytest.mark.parametrize("provider", ["openai", "mistral", "groq", "deepseek", "google"])
def test_c_foreign_fields_and_echoed_nulls_are_left_out(provider: str) -> None:
    echoed = {
        "role": "assistant",
        "content": "b",
        "refusal": None,
        "annotations": [],
        "thinking_blocks": [{"type": "thinking"}],
    }
    signed = {**CALL, "extra_content": {"other": 1}, "index": 0}
    messages, dropped = sent_to(provider, [echoed, {"role": "assistant", "content": None, "tool_calls": [signed]}])
    assert messages[0] == {"role": "assistant", "content": "b"}
    assert {"messages.refusal", "messages.annotations", "messages.thinking_blocks"} <= set(dropped)
    assert messages[1]["content"] is None  # a call's content may be null
    assert provider == "google" or "extra_content" not in messages[1]["tool_calls"][0]


def test_c_reasoning_goes_to_deepseek_and_to_nobody_else() -> None:
    turn = {"role": "assistant", "content": "b", "reasoning_content": "t"}
    assert "reasoning_content" in sent_to("deepseek", [turn])[0][0]
    assert all(
        "reasoning_content" not in sent_to(name, [turn])[0][0] for name in ("openai", "groq", "mistral", "google")
    )


# E: what Anthropic's own API is known to refuse is not sent


def native(body: dict[str, Any], longest: int | None = None) -> tuple[dict[str, Any], tuple[str, ...]]:
    body = {"messages": [{"role": "user", "content": "Summarise the call."}], **body}
    return request_of(body, "claude", longest, stream=False, caching=False)


def image(url: str) -> list[dict[str, Any]]:
    return [
        {
            "role": "user",
            "content": [{"type": "text", "text": "what is it"}, {"type": "image_url", "image_url": {"url": url}}],
        }
    ]


def test_e_sampling_is_gone_since_the_version_of_today() -> None:
    sent, dropped = native({"temperature": 0.3, "top_p": 0.9, "top_k": 5})
    assert not {"temperature", "top_p", "top_k"} & sent.keys()
    assert dropped == ("temperature", "top_p", "top_k")
    assert VERSION == "2026-10-21"


def test_e_the_version_is_the_sdks() -> None:
    constants = pytest.importorskip("anthropic._constants", reason="the SDK is for tests alone")
    assert constants.ANTHROPIC_API_VERSION == VERSION


def test_e_image_types() -> None:
    sent, _ = native({"messages": image("data:image/jpg;base64,/9j/4AAQ")})
    assert sent["messages"][0]["content"][1]["source"]["media_type"] == "image/jpeg"
    with pytest.raises(ValueError, match=r"svg"):
        native({"messages": image("data:image/svg+xml;base64,PHN2Zz4=")})


@pytest.mark.parametrize("user", ["someone@example.com", "+43 664 1234567"])
def test_e_a_user_that_is_an_address_is_hashed(user: str) -> None:
    sent, dropped = native({"user": user})
    assert sent["metadata"]["user_id"].isalnum() and user not in json.dumps(sent)
    assert "user as a hash" in dropped
    assert native({"user": "u-17"})[0]["metadata"] == {"user_id": "u-17"}


def test_e_blanks() -> None:
    messages = [
        {"role": "system", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": ""}, {"type": "text", "text": "hello"}]},
        {"role": "assistant", "content": "The answer is "},
    ]
    sent, dropped = native({"messages": messages, "stop": ["\n", "END"]})
    assert "system" not in sent
    assert sent["messages"][0]["content"] == [{"type": "text", "text": "hello"}]
    assert sent["messages"][1]["content"][0]["text"] == "The answer is"
    assert sent["stop_sequences"] == ["END"]
    assert {"blank stop sequences", "blanks at the end of the last turn"} <= set(dropped)


def test_e_schema_keywords_go_into_descriptions() -> None:
    score = {"type": "integer", "minimum": 1, "maximum": 10, "description": "how good"}
    tags = {"type": "array", "items": {"type": "string", "maxLength": 20}, "minItems": 2}
    schema = {"type": "object", "properties": {"score": score, "tags": tags}, "required": ["score"]}
    form = {"type": "json_schema", "json_schema": {"name": "r", "strict": True, "schema": schema}}
    sent, dropped = native({"response_format": form})
    made = sent["output_config"]["format"]["schema"]
    assert made["properties"]["score"] == {"type": "integer", "description": "how good\n\n{minimum: 1, maximum: 10}"}
    assert made["properties"]["tags"]["items"] == {"type": "string", "description": "{maxLength: 20}"}
    assert made["additionalProperties"] is False
    assert "schema keywords as descriptions" in dropped


def test_e_a_tools_schema_is_an_object() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}}
    assert native({"tools": [tool]})[0]["tools"][0]["input_schema"]["type"] == "object"


def test_e_thinking_stays_below_the_limit() -> None:
    thinking = {"type": "enabled", "budget_tokens": 10_000}
    sent, _ = native({"thinking": thinking})
    assert sent["max_tokens"] > sent["thinking"]["budget_tokens"] == 10_000
    sent, dropped = native({"thinking": thinking, "max_tokens": 4096})
    assert (sent["max_tokens"], sent["thinking"]["budget_tokens"]) == (4096, 4095)
    assert "thinking of 4095 tokens" in dropped
    assert "thinking" not in native({"thinking": thinking, "max_tokens": 500})[0]


def test_e_thinking_goes_on_only_with_its_own_blocks() -> None:
    asked = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096, "tools": TOOLS}
    sent, dropped = native({"messages": LOOP, **asked})
    assert "thinking" not in sent and "thinking, as an earlier turn has none of its own" in dropped
    kept = {"type": "thinking", "thinking": "hm", "signature": "SIG"}
    turn = {
        **LOOP[1],
        "thinking_blocks": [kept, {"type": "thinking", "thinking": "foreign"}],
        "reasoning_content": "hm",
    }
    sent, _ = native({"messages": [LOOP[0], turn, LOOP[2]], **asked})
    assert sent["thinking"]["budget_tokens"] == 1024
    assert [block["type"] for block in sent["messages"][1]["content"]] == ["thinking", "tool_use"]
    assert sent["messages"][1]["content"][0] == kept


def test_e_images_in_tool_answers_and_marks_for_the_cache_are_carried_over() -> None:
    parts = [
        {"type": "text", "text": "see", "cache_control": {"type": "ephemeral"}},
        *image("https://x/y.png")[0]["content"][1:],
    ]
    sent, _ = native({"messages": [*LOOP[:2], {**LOOP[2], "content": parts}], "tools": TOOLS})
    (result,) = sent["messages"][2]["content"]
    assert [block["type"] for block in result["content"]] == ["text", "image"]
    assert result["cache_control"] == {"type": "ephemeral"}  # refused inside of the content


def test_e_thinking_comes_back_with_its_signature_whole_and_streamed() -> None:
    blocks = [{"type": "thinking", "thinking": "let me see", "signature": "SIG"}, {"type": "text", "text": "rain"}]
    usage = {"input_tokens": 10, "output_tokens": 5}
    whole = completion_of(
        {"type": "message", "id": "m", "model": "c", "content": blocks, "stop_reason": "end_turn", "usage": usage}
    )
    assembly = Assembly()
    for event in (
        {
            "type": "message_start",
            "message": {"type": "message", "id": "m", "model": "c", "usage": {"input_tokens": 10, "output_tokens": 1}},
        },
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "let me "}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "see"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "SIG"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "rain"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
    ):
        assembly.add(json.dumps(event).encode())
    assert assembly.completion() == whole
    message = whole["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"], message["thinking_blocks"]) == (
        "rain",
        "let me see",
        blocks[:1],
    )
