"""Chat completions over the queue, with OpenAI's own SDK as an app uses it."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from typing import Any

import httpx
import openai
import pytest
import redis

from producer import Producer, keyspace
from producer.connection import connect
from producer.job import JobStatus
from tests.support.openai_door import HELLO, chat, door
from tests.support.polling import until
from tests.support.replies import texts
from tests.support.web import TOKEN, served
from tests.support.workshop import Workshop

pytestmark = pytest.mark.server


def calls(workshop: Workshop) -> int:
    return sum(workshop.providers.account(name)["asked"] for name in ("a", "b"))


def test_a_chat_is_a_job_and_its_answer_names_what_answered(sdk: openai.OpenAI, sdk_producer: Producer) -> None:
    raw = sdk.chat.completions.with_raw_response.create(model="gpt-x", messages=HELLO)  # type: ignore[arg-type]
    answer = raw.parse()
    assert answer.choices[0].message.content == "You said: hello"
    assert answer.model == "a-1" and answer.object == "chat.completion"
    assert raw.headers["x-failover-route"] == "a/a-1" and raw.request_id
    assert int(raw.headers["x-ratelimit-remaining-requests"]) == int(raw.headers["x-ratelimit-limit-requests"]) - 1
    result = sdk_producer.fetch(raw.headers["x-failover-job-id"])
    assert result.status is JobStatus.DONE and result.text == "You said: hello"


def test_a_stream_is_the_whole_answer_in_chunks_with_the_usage_if_asked(sdk: openai.OpenAI) -> None:
    parts = list(chat(sdk, stream=True, stream_options={"include_usage": True}))
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == "You said: hello"
    assert parts[0].choices[0].delta.role == "assistant" and parts[-2].choices[0].finish_reason == "stop"
    assert parts[-1].choices == [] and parts[-1].usage.total_tokens > 0
    assert all(part.usage is None for part in chat(sdk, stream=True))


def test_the_sdks_own_helper_reads_a_stream_of_tools(sdk: openai.OpenAI, workshop: Workshop) -> None:
    function = {"name": "weather", "arguments": '{"city": "Lisbon"}'}
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }
    workshop.providers.behave("a", body=answer(message, "tool_calls"))
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    with sdk.chat.completions.stream(model="default", messages=HELLO, tools=tools) as stream:  # type: ignore[arg-type]
        final = stream.get_final_completion()
    calls: Any = final.choices[0].message.tool_calls
    (call,) = calls
    assert (call.id, call.function.name, json.loads(call.function.arguments)) == ("c1", "weather", {"city": "Lisbon"})
    assert final.choices[0].finish_reason == "tool_calls"


def answer(message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def test_the_async_client_does_the_same(sdk: openai.OpenAI) -> None:
    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=str(sdk.base_url), api_key=TOKEN) as client:
            ask = client.chat.completions.create
            answers = await asyncio.gather(*(ask(model="default", messages=said(str(n))) for n in range(20)))
            return [each.choices[0].message.content or "" for each in answers]

    assert asyncio.run(run()) == [f"You said: {n}" for n in range(20)]


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]


def test_a_model_is_a_job_type_a_route_or_the_default(sdk: openai.OpenAI, sdk_producer: Producer) -> None:
    assert {"default", "batch"} <= {model.id for model in sdk.models.list()}
    until(lambda: "b/b-1" in {model.id for model in sdk.models.list()}, "the worker's routes are listed")
    assert sdk.models.retrieve("b/b-1").owned_by == "b"
    raw = sdk.chat.completions.with_raw_response.create(model="b/b-1", messages=HELLO)  # type: ignore[arg-type]
    assert raw.headers["x-failover-route"] == "b/b-1"
    raw = sdk.chat.completions.with_raw_response.create(model="batch", messages=HELLO)  # type: ignore[arg-type]
    assert sdk_producer.client.hget(keyspace.job(raw.headers["x-failover-job-id"]), "job_type") == b"batch"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("nobody/knows")


def test_who_asks_is_in_the_job(sdk: openai.OpenAI, sdk_producer: Producer) -> None:
    raw = sdk.chat.completions.with_raw_response.create(
        model="default",
        messages=HELLO,  # type: ignore[arg-type]
        metadata={"feature": "notes"},
        user="u-7",
        extra_headers={"x-failover-tenant": "acme"},
    )
    tenant, feature = sdk_producer.client.hmget(keyspace.job(raw.headers["x-failover-job-id"]), "tenant", "feature")
    assert (tenant, feature) == (b"acme", None)  # a done job keeps who it was for; its feature is in the history


def test_a_wrong_request_is_a_sentence_and_is_not_sent_again(sdk: openai.OpenAI, workshop: Workshop) -> None:
    with pytest.raises(openai.BadRequestError, match="messages") as wrong:
        sdk.chat.completions.create(model="default", messages=[])
    assert wrong.value.type == "invalid_request_error" and wrong.value.param == "body.messages"
    with pytest.raises(openai.BadRequestError, match="n"):
        chat(sdk, n=2)
    with pytest.raises(openai.BadRequestError, match="stream"):
        chat(sdk, extra_body={"stream": "yes"})
    with pytest.raises(openai.AuthenticationError):
        chat(sdk.with_options(api_key="wrong"))
    assert calls(workshop) == 0
    with pytest.raises(openai.NotFoundError, match="ends in /v1"):
        chat(sdk.with_options(base_url=str(sdk.base_url).removesuffix("v1/")))


def test_what_a_provider_refuses_is_told_with_its_words(sdk: openai.OpenAI, workshop: Workshop) -> None:
    filtered = {
        "message": "The response was filtered: hate.",
        "type": "invalid_request_error",
        "code": "content_filter",
    }
    for upstream in ("a", "b"):
        workshop.providers.behave(upstream, status=400, error=filtered)
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="filtered: hate") as refused:
            list(chat(sdk, stream=stream, messages=said(f"stream {stream}")))
        assert refused.value.code == "content_filter"
    assert calls(workshop) == 2  # none of the SDK's retries was paid


def test_an_sdks_retry_finds_the_job_of_its_first_request(sdk: openai.OpenAI, workshop: Workshop) -> None:
    workshop.providers.behave("a", latency=[1.0, 1.0])
    hasty = sdk.with_options(timeout=0.3, max_retries=8)
    assert chat(hasty).choices[0].message.content == "You said: hello"
    assert calls(workshop) == 1
    assert chat(hasty).choices[0].message.content == "You said: hello"
    assert calls(workshop) == 2  # a new request is new work, whatever it says


def test_a_retry_after_its_job_was_cancelled_is_a_new_one(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy(when_client_leaves="cancel")
    workshop.providers.behave("a", latency=[5.0, 5.0])
    with door(workshop) as sdk:
        hasty = sdk.with_options(timeout=0.5, max_retries=1)
        with pytest.raises(openai.APITimeoutError):  # and not a conflict with the job that it has cancelled itself
            chat(hasty)


def test_an_idempotency_key_is_the_same_job_and_no_other(sdk: openai.OpenAI, workshop: Workshop) -> None:
    headers = {"Idempotency-Key": "order-7"}
    first, second = (chat(sdk, extra_headers=headers) for _ in range(2))
    assert first == second and calls(workshop) == 1
    with pytest.raises(openai.ConflictError, match="another body"):
        chat(sdk, messages=said("other"), extra_headers=headers)


def test_respond_async_is_a_202_and_late_an_error_while_the_job_goes_on(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy(max_time_to_answer_seconds=0.3)
    with door(workshop, worker=False) as sdk:
        asked = sdk.chat.completions.with_raw_response
        raw = asked.create(model="default", messages=HELLO, extra_headers={"Prefer": "respond-async"})  # type: ignore[arg-type]
        assert raw.status_code == 202 and raw.headers["preference-applied"] == "respond-async"
        assert producer.fetch(json.loads(raw.text)["id"]).status is JobStatus.QUEUED
        for stream in (False, True):
            with pytest.raises(openai.APIError, match="the job goes on"):
                list(chat(sdk, stream=stream))
        assert producer.client.llen("rq:queue:ai-tasks") == 3  # no retry of the SDK became a job
    workshop.policy(max_time_to_answer_seconds=0.3, when_late="accept")
    with door(workshop, worker=False) as sdk:
        raw = sdk.chat.completions.with_raw_response.create(model="default", messages=HELLO)  # type: ignore[arg-type]
        assert raw.status_code == 202 and raw.headers["location"] == json.loads(raw.text)["status_url"]


@pytest.mark.parametrize("then", ["continue", "cancel"])
def test_when_the_client_leaves_its_job_goes_on_or_is_cancelled(
    workshop: Workshop, producer: Producer, client: redis.Redis, then: str
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy(when_client_leaves=then)
    body = {"model": "default", "messages": HELLO}
    with served(workshop) as http:
        for stream in (False, True):
            with pytest.raises(httpx.ReadTimeout):
                http.post("/v1/chat/completions", json=body | {"stream": stream}, timeout=0.3)
        ids = texts(client.lrange("rq:queue:ai-tasks", 0, -1))
        if then == "cancel":
            until(
                lambda: (
                    {each.status for each in producer.fetch_many(all_jobs(client)) if each} == {JobStatus.CANCELLED}
                ),
                then,
            )
        else:
            assert len(ids) == 2 and {each.status for each in producer.fetch_many(ids) if each} == {JobStatus.QUEUED}


def all_jobs(client: redis.Redis) -> list[str]:
    return [key.decode().removeprefix("rq:job:") for key in client.scan_iter("rq:job:*")]


def test_live_text_comes_as_the_provider_writes_it(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy(stream="live")
    workshop.providers.behave("a", text="one two three four five six seven eight", chunks=8, chunk_gap=0.15)
    with door(workshop) as sdk:
        times, texts = [], []
        for part in chat(sdk, stream=True, stream_options={"include_usage": True}):
            if part.choices and part.choices[0].delta.content:
                times.append(time.monotonic())
                texts.append(part.choices[0].delta.content)
        assert "".join(texts) == "one two three four five six seven eight"
        assert len(texts) >= 4 and times[-1] - times[0] > 0.5  # it was read while it came
        assert part.usage.total_tokens > 0


def test_live_fails_over_before_the_first_token_and_breaks_with_an_error_after_it(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}], warm=[{"upstream": "b"}])
    workshop.policy(first_token_seconds=2, stream="live")
    with door(workshop) as sdk:
        workshop.providers.behave("a", status=503)
        assert text_of(chat(sdk, stream=True)) == "You said: hello"
        workshop.providers.behave("a", fault="cut", text="half of an answer", chunks=8, chunk_gap=0.1)
        workshop.providers.behave("b", text="another answer")
        with pytest.raises(openai.APIError, match="broke off"):
            text_of(chat(sdk, stream=True, messages=said("again")))


def text_of(stream: Any) -> str:
    return "".join(part.choices[0].delta.content or "" for part in stream if part.choices)


def test_a_web_process_that_stops_sends_its_waiting_clients_to_the_next(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    with door(workshop, worker=False) as sdk:
        port = str(sdk.base_url.port)
        answers: list[str] = []
        patient = sdk.with_options(max_retries=30)
        thread = thread = threading.Thread(target=lambda: answers.append(chat(patient).choices[0].message.content))
        thread.start()
        web = workshop.processes[-1]
        with connect(workshop.url) as client:
            until(lambda: client.llen("rq:queue:ai-tasks") == 1, "the job is there")
        web.send_signal(signal.SIGTERM)
        assert web.wait(20) == 0
        workshop.start("failover", "serve", PORT=port, FAILOVER_API_TOKEN=TOKEN)
        workshop.worker()
        thread.join(30)
        assert answers == ["You said: hello"] and workshop.providers.account("a")["asked"] == 1


def test_a_tenants_token_sees_nothing_of_others(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    token = workshop.run("failover", "tokens", "create", "app", "--role", "tenant", "--tenant", "acme").stdout.strip()
    viewer = workshop.run("failover", "tokens", "create", "eyes", "--role", "viewer").stdout.strip()
    with door(workshop, token=token) as sdk:
        raw = sdk.chat.completions.with_raw_response.create(model="default", messages=HELLO)  # type: ignore[arg-type]
        with connect(workshop.url) as client:
            assert client.hget(keyspace.job(raw.headers["x-failover-job-id"]), "tenant") == b"acme"
        with pytest.raises(openai.PermissionDeniedError, match="acme only"):
            chat(sdk, extra_headers={"x-failover-tenant": "other"})
        with pytest.raises(openai.PermissionDeniedError):
            chat(sdk.with_options(api_key=viewer))
        assert sdk.with_options(api_key=viewer).models.list().data
