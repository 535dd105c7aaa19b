"""Streams as gateways really send them (tests/data/odd_streams.yaml), as exact bytes over real HTTP: what each comes to. Half an
answer is never an answer, and nothing of a whole one is lost or doubled."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from producer.job import JobResult, JobStatus
from tests.support.raw_provider import raw_provider
from worker.errors.classify import Broken, Reply, classify
from worker.providers import ProviderRequest, Providers
from worker.providers.assembly import Assembly
from worker.providers.http import Spoken, read_whole
from worker.providers.openai_compatible import as_completion
from worker.providers.sse import Events
from worker.routes.prices import Price, billed_micros
from worker.routes.route import Route
from worker.routes.schema import RouteEntry
from worker.routing.answer import usage_of

STREAMS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "data" / "odd_streams.yaml").read_text())
NOW = 1_763_700_000.0


def answered(raw: bytes, content_type: str, api: Any) -> Reply | Broken:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\nconnection: close\r\n\r\n".encode()

    async def call(url: str) -> Reply | Broken:
        providers = Providers(1)
        entry = RouteEntry(provider="p", model="m", base_url=url, api=api)
        body = {"messages": [{"role": "user", "content": "x"}]}
        request = ProviderRequest(Route("p/m", "hot", entry, url), "", body, "key", 5.0, first_token_seconds=2.0)
        try:
            return await providers.complete(request)
        finally:
            await providers.close()

    with raw_provider(head + raw) as provider:
        return asyncio.run(call(provider.url))


@pytest.mark.parametrize("stream", STREAMS, ids=[stream["what"] for stream in STREAMS])
def test_every_odd_stream(stream: dict[str, Any]) -> None:
    answer = answered(
        stream["raw"].encode(), stream.get("content_type", "text/event-stream"), stream.get("api", "openai")
    )
    failure, means = classify(answer, NOW), stream["means"]
    if isinstance(means, str):
        assert failure is not None
        assert failure.code == means
        return
    assert failure is None
    assert isinstance(answer, Reply)
    result = JobResult(job_id="x", status=JobStatus.DONE, completion=answer.body)
    (choice,) = answer.body["choices"]
    calls = [
        [call["function"]["name"], call["function"]["arguments"]] for call in choice["message"].get("tool_calls", ())
    ]
    usage = usage_of(answer)
    assert {
        "text": result.text,
        "finish": choice["finish_reason"],
        "micros": billed_micros(Price(input=1, output=10), usage) if usage else None,
        **({"calls": calls} if calls else {}),
    } == means


@pytest.mark.parametrize("line", [b"1,\n", b"data: 1,\n", b' "a": {},\n'], ids=["bare", "data", "pretty"])
def test_long_streams_of_what_is_no_event_take_time_by_their_length(line: bytes) -> None:
    """Each line is looked at once: 200,000 of them took minutes when all before it were read again."""
    events, assembly = Events(), Assembly()
    for data in (*events.feed(b"[\n" + line * 200_000), *events.end()):
        assembly.add(data)
    assert not assembly.whole


def test_what_may_be_news_is_an_error_only_where_the_answer_is_not_whole() -> None:
    news = b'data: {"message": "searching the web"}\n\n'
    half = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": null}]}\n\n'
    end = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
    found = {}
    for name, raw in {"whole": news + half + end, "half": half + news + b"data: [DONE]\n\n"}.items():
        answer = read_whole(200, {}, raw, (), Spoken("", {}, {}, Assembly))
        found[name] = classify(answer, NOW)
    assert found["whole"] is None
    assert found["half"] is not None and "searching the web" in found["half"].detail


def test_pieces_that_look_like_what_came_before_are_not_lost() -> None:
    silence = "A" * 60  # of a sound, whose first two pieces are the same
    deltas: list[dict[str, Any]] = [
        {"audio": {"data": silence, "transcript": "see "}},
        {"audio": {"data": silence, "transcript": "https://x"}},
        *({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": piece}}]} for piece in NESTED),
    ]
    assembly = Assembly()
    for delta in deltas:
        assembly.add(json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode())
    message = assembly.completion()["choices"][0]["message"]
    assert message["audio"] == {"data": 2 * silence, "transcript": "see https://x"}
    assert message["tool_calls"][0]["function"]["arguments"] == '{"query":{"query":1}}'


NESTED = ('{"query":', '{"query":1}', "}")


@pytest.mark.parametrize("result", [5, "choices", ["choices"], {}])
def test_an_envelope_without_an_answer_breaks_nothing(result: Any) -> None:
    assert as_completion({"result": result}) == {"result": result}
