"""Conversations with tools as providers take them: what each of their 400s asks for is done before the call, and said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from producer import JobStatus, LLMJob, Producer
from tests.support.raw_provider import raw_provider, reply
from tests.support.workshop import Workshop
from worker.errors.catalog import PARAMETER
from worker.providers.anthropic.answer import BLOCKS
from worker.providers.anthropic.request import request_of
from worker.providers.anthropic.tool_names import fitting_names, renamed
from worker.routes.api_keys import Keys
from worker.routes.parameters import LISTS, fitted
from worker.routes.route import Route
from worker.routes.schema import RouteEntry
from worker.routing.attempt import RouteAttempt
from worker.routing.request_builder import MOST_REFUSED, RequestBuilder

USER = {"role": "user", "content": "Q"}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


def call(call_id: str, name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*ids: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [call(each) for each in ids], **more}


def tool(call_id: str, content: Any = "r") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def natively(*messages: dict[str, Any], **body: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    return request_of({"messages": list(messages), **body}, "m", 4096, stream=False, caching=True)


def sent_to(provider: str, *messages: dict[str, Any], **body: Any) -> tuple[Any, tuple[str, ...]]:
    sent, dropped = fitted({"messages": list(messages), **body}, LISTS[provider])
    return sent, dropped


def test_an_answer_stands_right_after_its_call() -> None:
    talk = [USER, calls("a", "b"), {"role": "user", "content": "hold on"}, tool("b", "B"), tool("a", "A")]
    sent, dropped = sent_to("openai", *talk)
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "tool", "tool", "user"]
    assert [message.get("content") for message in sent["messages"][2:4]] == ["A", "B"]
    assert "answers of tools right after their calls" in dropped
    native, _ = natively(*talk, tools=TOOLS)
    assert [block["type"] for block in native["messages"][2]["content"]] == ["tool_result", "tool_result", "text"]


def test_calls_without_answers_and_answers_without_calls_are_said() -> None:
    sent, dropped = sent_to("mistral", USER, tool("nobody", "left over"), calls("abcdefghi"), USER)
    roles = [message["role"] for message in sent["messages"]]
    assert roles == ["user", "user", "assistant", "tool", "assistant", "user"]
    assert sent["messages"][1]["content"] == "left over"
    assert {"calls of tools without an answer", "answers of tools that nobody called, as the user's text"} <= set(
        dropped
    )


def test_an_id_that_comes_twice_is_replaced_on_both_sides() -> None:
    native, dropped = natively(
        USER, calls("call_0"), tool("call_0", "1"), calls("call_0"), tool("call_0", "2"), tools=TOOLS
    )
    first, second = (native["messages"][at]["content"][0] for at in (1, 3))
    answers = [native["messages"][at]["content"][0]["tool_use_id"] for at in (2, 4)]
    assert first["id"] != second["id"]
    assert answers == [first["id"], second["id"]]
    assert "ids of tool calls that came twice" in dropped


@pytest.mark.parametrize("provider", ["mistral", "groq", "google", "deepseek"])
def test_functions_of_an_older_conversation_are_tools(provider: str) -> None:
    legacy = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}
    sent, _ = sent_to(provider, USER, legacy, {"role": "function", "name": "f", "content": "r"}, USER)
    asked, answered = sent["messages"][1], sent["messages"][2]
    assert asked["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert (answered["role"], answered["tool_call_id"]) == ("tool", asked["tool_calls"][0]["id"])


def test_what_openai_refuses_in_a_conversation_is_not_sent() -> None:
    long_id = "x" * 64
    thought = {"role": "assistant", "content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}]}
    image = {"role": "user", "name": "Bob M", "content": [{"type": "image_url", "image_url": "https://x/y.png"}]}
    sent, _ = sent_to(
        "openai", image, thought, {**thought, "content": "b", "tool_calls": []}, calls(long_id), tool(long_id)
    )
    first, second, third, asked, answered = sent["messages"]
    assert (first["name"], first["content"][0]["image_url"]) == ("Bob_M", {"url": "https://x/y.png"})
    assert second["content"] == [{"type": "text", "text": "a"}]
    assert "tool_calls" not in third
    assert len(asked["tool_calls"][0]["id"]) <= 40
    assert answered["tool_call_id"] == asked["tool_calls"][0]["id"]


def test_each_provider_gets_content_and_schemas_as_it_takes_them() -> None:
    parts = {"role": "system", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}
    assert sent_to("deepseek", parts)[0]["messages"][0]["content"] == "one\ntwo"
    assert sent_to("groq", parts)[0]["messages"][0]["content"] == "one\ntwo"
    refused = {"role": "assistant", "content": None, "refusal": "No"}
    assert sent_to("mistral", USER, refused, USER)[0]["messages"][1]["content"] == "No"
    assert "name" not in sent_to("mistral", {**USER, "name": "Bob"})[0]["messages"][0]
    assert sent_to("mistral", USER, {"role": "assistant", "content": "{"})[0]["messages"][-1]["prefix"] is True
    schema = {
        "$schema": "x",
        "type": "object",
        "properties": {"$schema": {"type": "string"}},
        "additionalProperties": False,
    }
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    sent, dropped = sent_to("google", USER, tools=tools)
    assert sent["tools"][0]["function"]["parameters"] == {
        "type": "object",
        "properties": {"$schema": {"type": "string"}},
    }
    assert "keywords of tool schemas" in dropped
    for known in (None, *LISTS.values()):  # an empty list of tools is refused, wherever it is known
        bare, _ = fitted({"messages": [USER], "tools": [], "tool_choice": "auto"}, known)
        assert set(bare) == {"messages"}


def test_what_anthropic_refuses_in_turns_is_not_sent() -> None:
    started, dropped = natively({"role": "assistant", "content": "Hello"}, USER)
    assert [turn["role"] for turn in started["messages"]] == ["user", "assistant", "user"]
    assert "a user's turn before the first one" in dropped
    ended, _ = natively(USER, {"role": "assistant", "content": "a"}, {"role": "system", "content": "Be short."})
    assert ended["messages"][-1] == {"role": "user", "content": [{"type": "text", "text": "Be short."}]}
    thinking = {"type": "thinking", "thinking": "h", "signature": "S"}
    alone, _ = natively(
        USER, {"role": "assistant", "content": None, "thinking_blocks": [thinking]}, USER, thinking={"type": "adaptive"}
    )
    assert [turn["role"] for turn in alone["messages"]] == ["user"]
    bare, _ = natively(USER, calls("a"), tool("a"))
    assert bare["tools"] == [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]
    assert bare["tool_choice"] == {"type": "none"}


def test_a_mark_of_the_jobs_own_leaves_no_room_for_ours() -> None:
    marked = [{"type": "text", "text": f"u{n}", "cache_control": {"type": "ephemeral"}} for n in range(5)]
    sent, dropped = natively({"role": "system", "content": "S " * 3000}, {"role": "user", "content": marked})
    blocks = [*sent["system"], *sent["messages"][0]["content"]]
    assert sum("cache_control" in block for block in blocks) == 4
    assert "cache_control" not in sent["system"][-1]
    assert "cache_control of more than four places" in dropped


def test_an_image_is_labelled_by_its_bytes() -> None:
    url = "data:image/jpeg;base64,iVBORw0KGgoAAAAN\nSUhEUgAAAAEAAAAB"
    sent, _ = natively({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})
    source = sent["messages"][0]["content"][0]["source"]
    assert (source["media_type"], "\n" in source["data"]) == ("image/png", False)


def test_thinking_between_calls_goes_out_in_its_order() -> None:
    blocks = [
        {"type": "thinking", "thinking": "1", "signature": "S"},
        {"type": "text", "text": "a"},
        {"type": "thinking", "thinking": "2", "signature": "T"},
        {"type": "tool_use", "id": "c", "name": "f", "input": {}},
    ]
    sent, _ = natively(USER, calls("c", **{BLOCKS: blocks}), tool("c"), tools=TOOLS, thinking={"type": "adaptive"})
    assert [block["type"] for block in sent["messages"][1]["content"]] == ["thinking", "text", "thinking", "tool_use"]


def test_names_of_tools_fit_and_come_back() -> None:
    body = {"tools": [{"type": "function", "function": {"name": name}} for name in ("a.b", "a_b", "x y")]}
    names = fitting_names(body)
    assert names == {"a.b": "a_b_1", "x y": "x_y"}
    there = renamed(
        {"choices": [{"message": {"tool_calls": [{"function": {"name": "a.b", "arguments": "{}"}}]}}]}, names
    )
    back = renamed(there, {short: name for name, short in names.items()})
    assert there["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "a_b_1"
    assert back["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "a.b"


def refuses(field: str, words: str, *, when: Any = None) -> Any:
    """A provider that refuses a parameter, or only this value of it."""

    def answer(body: dict[str, Any]) -> bytes:
        there = any(field in message for message in body["messages"]) or field in body
        if there and (when is None or body.get(field) == when):
            return reply({"error": {"message": words}}, 400)
        message = {"role": "assistant", "content": "yes"}
        return reply({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    return answer


def test_a_value_that_does_not_fit_costs_later_jobs_nothing(workshop: Workshop, producer: Producer) -> None:
    words = "`reasoning_effort` must be one of `low` or `high`"
    with raw_provider(refuses("reasoning_effort", words, when="minimal")) as provider:
        workshop.routes(hot=[{"upstream": "a", "baseUrl": provider.url}])
        workshop.worker("--concurrency", "1")
        bodies: list[Any] = [{"messages": [USER], "reasoning_effort": effort} for effort in ("minimal", "high")]
        results = [producer.wait(producer.enqueue(LLMJob(body=body)), 15) for body in bodies]
    assert [result.status for result in results] == [JobStatus.DONE] * 2
    assert [asked.get("reasoning_effort") for asked in provider.asked] == ["minimal", None, "high"]
    assert results[0].attempted[-1].dropped == ("reasoning_effort",)


def test_a_field_of_the_messages_that_a_gateway_does_not_know_is_left_out(
    workshop: Workshop, producer: Producer
) -> None:
    words = "Extra inputs are not permitted, field: 'messages[1].reasoning_details'"
    with raw_provider(refuses("reasoning_details", words)) as provider:
        workshop.routes(hot=[{"upstream": "a", "baseUrl": provider.url}])
        workshop.worker("--concurrency", "1")
        body: Any = {"messages": [USER, {"role": "assistant", "content": "a", "reasoning_details": []}, USER]}
        results = [producer.wait(producer.enqueue(LLMJob(body=body, user_id=str(n))), 15) for n in range(2)]
    assert [result.status for result in results] == [JobStatus.DONE] * 2
    assert ["reasoning_details" in asked["messages"][1] for asked in provider.asked] == [True, False, False]
    assert results[1].attempted[-1].dropped == ("messages.reasoning_details",)


@pytest.mark.parametrize("junk", [5, ["x", {"id": "a"}], {"a": 1}, "calls", [None]])
def test_what_no_conversation_has_breaks_nothing(junk: Any) -> None:
    talk = [{"role": "assistant", "content": [{"type": ["x"]}, 7], "tool_calls": junk}, tool("a"), {**USER, "name": 7}]
    for known in LISTS.values():
        fitted({"messages": talk, "tools": [junk]}, known)


def test_two_ids_in_one_turn_are_told_apart_and_functions_keep_their_results() -> None:
    native, _ = natively(USER, calls("a", "a"), tool("a", "1"), tool("a", "2"), tools=TOOLS)
    ids = [block["id"] for block in native["messages"][1]["content"]]
    assert len(set(ids)) == 2
    assert [block["tool_use_id"] for block in native["messages"][2]["content"]] == ids
    legacy = {"role": "assistant", "content": None, "function_call": {"name": "a.b", "arguments": "{}"}}
    body = {
        "messages": [USER, legacy, {"role": "function", "name": "a.b", "content": "r"}],
        "functions": [{"name": "a.b"}],
    }
    sent, _ = request_of(renamed(body, fitting_names(body)), "m", 4096, stream=False, caching=False)
    assert sent["messages"][1]["content"][0]["name"] == sent["tools"][0]["name"] == "a_b"
    assert sent["messages"][2]["content"][0]["content"] == "r"


def test_what_a_route_refuses_is_remembered_up_to_a_bound() -> None:
    route = Route("a/m", "hot", RouteEntry(provider="a", model="m", base_url="http://x"), "http://x")
    builder = RequestBuilder(Keys())
    body: dict[str, Any] = {"messages": [{**USER, **{f"f{number}": 1 for number in range(2 * MOST_REFUSED)}}]}
    for number in range(2 * MOST_REFUSED):
        attempt = RouteAttempt(route, body)
        refused = replace(PARAMETER, parameter=f"messages.f{number}", unknown=True)
        correction = attempt.correction(refused.parameter, "")
        assert correction is not None
        builder.remember(attempt, refused, correction)
        assert f"f{number}" not in attempt.body["messages"][0]  # this job is corrected all the same
    (remembered,) = builder._refused.values()
    assert len(remembered) == MOST_REFUSED
