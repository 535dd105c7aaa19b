"""Responses over the queue, with OpenAI's own SDK: waited for, in the background, continued, cancelled, streamed and resumed."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
import redis
from pydantic import BaseModel

from producer import Producer, keyspace
from producer.connection import connect
from tests.support.openai_door import door
from tests.support.polling import until
from tests.support.workshop import Workshop
from tests.test_openai_chat import answer

pytestmark = pytest.mark.server

TOOLS: Any = [
    {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}
]


def asked_of(workshop: Workshop) -> dict[str, Any]:
    """The body that the provider got last."""
    body: dict[str, Any] = workshop.providers.account("a")["last"]
    return body


def test_a_response_is_waited_for_and_can_be_read_again(sdk: openai.OpenAI, sdk_producer: Producer) -> None:
    made = sdk.responses.create(model="default", input="hello", instructions="Be short.", metadata={"feature": "notes"})
    assert made.output_text == "You said: hello" and made.status == "completed" and made.model == "a-1"
    assert made.usage is not None and made.usage.total_tokens > 0
    again = sdk.responses.retrieve(made.id)
    assert again.output_text == made.output_text and again.instructions == "Be short."
    (item,) = sdk.responses.input_items.list(made.id).data
    assert item.to_dict()["content"] == [{"type": "input_text", "text": "hello"}]
    sdk.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)
    assert sdk_producer.fetch(made.id.removeprefix("resp_")).text == "You said: hello"  # the job and its ledger stay


def test_one_that_is_not_stored_cannot_be_read_again(sdk: openai.OpenAI) -> None:
    made = sdk.responses.create(model="default", input="hello", store=False)
    assert made.output_text == "You said: hello"
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)


def test_a_response_continues_another_with_its_whole_conversation(sdk: openai.OpenAI, workshop: Workshop) -> None:
    first = sdk.responses.create(model="default", input="one", instructions="Never carried over.")
    second = sdk.responses.create(model="default", input="two", previous_response_id=first.id)
    third = sdk.responses.create(
        model="default", input=[{"role": "user", "content": "three"}], previous_response_id=second.id
    )
    assert third.previous_response_id == second.id
    said = [(message["role"], message["content"]) for message in asked_of(workshop)["messages"]]
    assert said == [
        ("user", "one"),
        ("assistant", "You said: one"),
        ("user", "two"),
        ("assistant", "You said: two"),
        ("user", "three"),
    ]
    with pytest.raises(openai.NotFoundError, match="nowhere"):
        sdk.responses.create(model="default", input="x", previous_response_id="resp_nowhere")


def test_tools_go_there_and_come_back(sdk: openai.OpenAI, workshop: Workshop) -> None:
    function = {"name": "weather", "arguments": '{"city":"Lisbon"}'}
    call = {"id": "call_9", "type": "function", "function": function}
    workshop.providers.behave(
        "a", body=answer({"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls")
    )
    made = sdk.responses.create(model="default", input="Weather?", tools=TOOLS, tool_choice="required")
    (item,) = made.output
    assert item.type == "function_call" and (item.call_id, json.loads(item.arguments)) == ("call_9", {"city": "Lisbon"})
    workshop.providers.behave("a")
    result: Any = [{"type": "function_call_output", "call_id": "call_9", "output": "sunny"}]
    sdk.responses.create(model="default", input=result, previous_response_id=made.id, tools=TOOLS)
    _, turn, output = asked_of(workshop)["messages"]
    assert turn["tool_calls"][0]["id"] == "call_9"
    assert output == {"role": "tool", "tool_call_id": "call_9", "content": "sunny"}
    both: Any = [{"role": "user", "content": "Weather?"}, made.output[0].to_dict(), *result]  # without the stored one
    sdk.responses.create(model="default", input=both)
    assert asked_of(workshop)["messages"][1]["tool_calls"][0]["function"]["name"] == "weather"


class Verdict(BaseModel):
    good: bool


def test_a_schema_is_sent_and_its_answer_is_parsed(sdk: openai.OpenAI, workshop: Workshop) -> None:
    workshop.providers.behave("a", text='{"good": true}')
    made = sdk.responses.parse(model="default", input="Judge.", text_format=Verdict, reasoning={"effort": "low"})
    assert made.output_parsed == Verdict(good=True)
    sent = asked_of(workshop)
    assert sent["response_format"]["json_schema"]["name"] == "Verdict" and sent["reasoning_effort"] == "low"


def test_an_answer_that_was_cut_is_incomplete(sdk: openai.OpenAI, workshop: Workshop) -> None:
    workshop.providers.behave("a", finish_reason="length", text="one two")
    made = sdk.responses.create(model="default", input="Go on.", max_output_tokens=2)
    assert (
        made.status == "incomplete"
        and made.incomplete_details
        and made.incomplete_details.reason == "max_output_tokens"
    )


def test_what_is_not_supported_is_refused_by_its_name(sdk: openai.OpenAI, workshop: Workshop) -> None:
    cases: list[tuple[str, dict[str, Any]]] = [
        ("conversation", {"conversation": "conv_1"}),
        ("prompt", {"prompt": {"id": "pmpt_1"}}),
        ("truncation", {"truncation": "auto"}),
        (r"tools\.0\.type", {"tools": [{"type": "web_search"}]}),
        (r"input\.0\.type", {"input": [{"type": "item_reference", "id": "x"}]}),
        (r"input\.0\.content\.0", {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}),
        ("input", {"input": []}),
        (r"input\.0\.role", {"input": [{"role": {}, "content": "x"}]}),
        (r"text\.format", {"text": {"format": {"type": None}}}),
        ("top_logprobs", {"top_logprobs": False}),
        ("NUL", {"max_tool_calls": {"a\0": 1}}),
        ("store", {"background": True, "store": False}),
    ]
    for name, wrong in cases:
        with pytest.raises(openai.BadRequestError, match=name):
            sdk.responses.create(**{"model": "default", "input": "x", **wrong})
    assert workshop.providers.account("a")["asked"] == 0


def test_a_response_in_the_background_is_queued_read_and_cancelled(workshop: Workshop, client: redis.Redis) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    with door(workshop, worker=False) as sdk:
        queued = sdk.responses.create(model="default", input="hello", background=True)
        assert queued.status == "queued" and queued.output == [] and queued.background
        other = sdk.responses.create(model="default", input="not any more", background=True)
        assert sdk.responses.cancel(other.id).status == "cancelled"
        assert 600 < client.ttl(keyspace.response(queued.id)) < 91 * 86400
        workshop.worker()
        until(lambda: sdk.responses.retrieve(queued.id).status == "completed", "it is done")
        assert sdk.responses.retrieve(queued.id).output_text == "You said: hello"
        with pytest.raises(openai.ConflictError):
            sdk.responses.cancel(queued.id)


def test_one_that_fails_says_why(sdk: openai.OpenAI, workshop: Workshop) -> None:
    filtered = {"message": "filtered: hate", "type": "invalid_request_error", "code": "content_filter"}
    workshop.providers.behave("a", status=400, error=filtered)
    with pytest.raises(openai.BadRequestError, match="filtered: hate"):
        sdk.responses.create(model="default", input="x")
    made = sdk.responses.create(model="default", input="x", background=True)
    failed = until(lambda: (it := sdk.responses.retrieve(made.id)).status == "failed" and it, "it failed")
    assert "filtered: hate" in failed.error.message


def events_of(stream: Any) -> list[tuple[int, str]]:
    return [(event.sequence_number, event.type) for event in stream]


@pytest.mark.parametrize("mode", ["whole", "live"])
def test_a_stream_has_the_events_of_the_sdk_and_can_be_resumed(workshop: Workshop, mode: str) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy(stream=mode)
    workshop.providers.behave("a", text="one two three four five six", chunks=6, chunk_gap=0.1)
    with door(workshop) as sdk:
        with sdk.responses.stream(model="default", input="hello", background=True) as stream:
            seen = [(event.sequence_number, event.type) for event in stream]
            final = stream.get_final_response()
        assert final.output_text == "one two three four five six"
        kinds = [kind for _, kind in seen]
        assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.completed"
        assert [number for number, _ in seen] == list(range(len(seen)))
        assert kinds.count("response.output_text.delta") >= (3 if mode == "live" else 1)
        for after in (0, 3, len(seen) - 2):
            rest = events_of(sdk.responses.retrieve(final.id, stream=True, starting_after=after))
            assert rest == seen[after + 1 :]


def test_a_reader_comes_back_in_the_middle(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy(stream="live", when_client_leaves="cancel")
    workshop.providers.behave("a", text="one two three four five six", chunks=6, chunk_gap=0.2)
    with door(workshop) as sdk:
        texts: list[str] = []
        response_id, last = "", 0
        with sdk.responses.create(model="default", input="hello", background=True, stream=True) as stream:
            for event in stream:
                last = event.sequence_number
                if event.type == "response.created":
                    response_id = event.response.id
                if event.type == "response.output_text.delta":
                    texts.append(event.delta)
                    break
        for event in sdk.responses.retrieve(response_id, stream=True, starting_after=last):
            if event.type == "response.output_text.delta":
                texts.append(event.delta)
        assert "".join(texts) == "one two three four five six"
        assert workshop.providers.account("a")["asked"] == 1


def test_a_tenant_sees_its_own_responses(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    tokens = [
        workshop.run("failover", "tokens", "create", name, "--role", "tenant", "--tenant", name).stdout.strip()
        for name in ("acme", "other")
    ]
    with door(workshop, token=tokens[0]) as sdk, connect(workshop.url):
        made = sdk.responses.create(model="default", input="hello")
        stranger = sdk.with_options(api_key=tokens[1])
        for look in (stranger.responses.retrieve, stranger.responses.cancel, stranger.responses.delete):
            with pytest.raises(openai.NotFoundError):
                look(made.id)
        with pytest.raises(openai.NotFoundError):
            stranger.responses.create(model="default", input="x", previous_response_id=made.id)
