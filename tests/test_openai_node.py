"""OpenAI's SDK for Node over the queue, and the examples in examples/node/ and examples/frameworks/."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import redis

from bench.throughput import free_port
from ops.local import embedded
from ops.simulators import provider
from producer import Producer
from producer.connection import connect
from producer.job import JobStatus
from producer.policy import Policies
from tests.support.documents import ROOT
from tests.support.node import Node, example
from tests.support.polling import until
from tests.support.replies import texts
from tests.support.web import TOKEN, served
from tests.support.workshop import Workshop, workshop_in

pytestmark = pytest.mark.server

LISBON = "Write two sentences about Lisbon."
SDK = """
import OpenAI from "openai";
const client = new OpenAI({ apiKey: process.env.FAILOVER_API_TOKEN, baseURL: process.env.FAILOVER_URL });
const chats = client.chat.completions;
const hello = { model: "app/chat", messages: [{ role: "user", content: "hello" }] };
const failure = async (promise) => promise.then(() => null, (error) => error);
const facts = (error) => ({
  kind: error.constructor.name, status: error.status, code: error.code, type: error.type, param: error.param,
  message: error.message, request: Boolean(error.requestID), job: error.headers?.get("x-failover-job-id") ?? null,
});
"""


@dataclass(frozen=True)
class Served:
    """A web process with a worker behind it, and Node programs that talk to it. Two routes: hot `a`, warm `b`."""

    workshop: Workshop
    url: str

    def node(self, name: str = "node") -> Node:
        """The packages of examples/{name}."""
        return example(name, self.workshop.folder / name, FAILOVER_URL=f"{self.url}/v1", FAILOVER_API_TOKEN=TOKEN)


@contextlib.contextmanager
def serving(workshop: Workshop, *, worker: bool = True, **policy: Any) -> Iterator[Served]:
    workshop.routes(hot=[{"upstream": "a"}], warm=[{"upstream": "b"}])
    workshop.policy(stream="whole", **policy)
    if worker:
        workshop.start("failover-worker")
    with served(workshop) as http, connect(workshop.url) as client:
        until(lambda: client.scard("rq:workers") == worker, "the worker registers")
        yield Served(workshop, str(http.base_url).rstrip("/"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, provider_server: provider.Control) -> Iterator[Served]:
    """For tests that do not take a route down: to start its processes takes longer than a test."""
    folder = tmp_path_factory.mktemp("node")
    with (
        embedded.running(folder / "valkey") as url,
        workshop_in(folder, url, provider_server) as workshop,
        serving(workshop) as one,
    ):
        yield one


@pytest.fixture
def place(shared: Served, providers: provider.Control) -> Workshop:
    """The shared one, with healthy providers whose calls are counted anew."""
    return shared.workshop


@pytest.fixture
def sdk(place: Workshop, shared: Served) -> Node:
    return shared.node()


def calls(workshop: Workshop) -> int:
    return sum(workshop.providers.account(name)["asked"] for name in ("a", "b"))


def test_a_chat_names_what_answered_and_its_job(sdk: Node, place: Workshop, policies: Policies) -> None:
    answer = sdk.value(
        SDK
        + """
        const { data, response, request_id } = await chats.create(hello).withResponse();
        out({ text: data.choices[0].message.content, model: data.model, request_id, own_id: data._request_id,
              job: response.headers.get("x-failover-job-id"), route: response.headers.get("x-failover-route") });
        """
    )
    assert (answer["text"], answer["model"], answer["route"]) == ("You said: hello", "a-1", "a/a-1")
    assert answer["request_id"] and answer["request_id"] == answer["own_id"]
    with connect(place.url) as client:
        assert Producer(client, policies).fetch(answer["job"]).status is JobStatus.DONE


def test_a_stream_is_read_by_chunks_and_by_the_sdks_helper(sdk: Node, place: Workshop) -> None:
    place.providers.behave("a", text="one two three four", chunks=4)
    answer = sdk.value(
        SDK
        + """
        const read = async (headers) => {
          const options = { ...hello, stream: true, stream_options: { include_usage: true } };
          const chunks = [];
          for await (const chunk of await chats.create(options, { headers })) chunks.push(chunk);
          const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
          return { text, tokens: chunks.at(-1).usage.total_tokens, finish: chunks.at(-2).choices[0].finish_reason };
        };
        const whole = await read({}), live = await read({ "x-failover-stream": "live" });
        const final = await chats.stream(hello).finalChatCompletion();
        out({ whole, live, final: final.choices[0].message.content });
        """
    )
    assert answer["whole"]["text"] == answer["live"]["text"] == answer["final"] == "one two three four"
    assert answer["whole"]["tokens"] == answer["live"]["tokens"] > 0
    assert answer["whole"]["finish"] == answer["live"]["finish"] == "stop"


def test_the_sdk_runs_the_tools_that_a_model_calls(sdk: Node, place: Workshop) -> None:
    function = {"name": "weather", "arguments": '{"city": "Lisbon"}'}
    call = {"id": "c1", "type": "function", "function": function}
    source = """
        const asked = [];
        const weather = { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } },
                          parse: JSON.parse, function: ({ city }) => { asked.push(city); return "18 degrees"; } };
        const runner = chats.runTools({ ...hello, stream, tools: [{ type: "function", function: weather }] });
        out({ text: await runner.finalContent(), asked });
    """
    for stream in ("false", "true"):
        place.providers.behave("a", body=asks_for([call]), times=1)  # then it repeats what the tool said
        answer = sdk.value(f"{SDK}const stream = {stream};{source}")
        assert answer == {"text": "You said: 18 degrees", "asked": ["Lisbon"]}


def asks_for(tool_calls: list[dict[str, Any]]) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, "tool_calls": tool_calls}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def test_models_are_listed_and_found_by_names_with_a_slash(sdk: Node) -> None:
    listed = "const names = []; for await (const model of client.models.list()) names.push(model.id); out(names);"
    until(lambda: {"default", "batch", "a/a-1", "b/b-1"} <= set(sdk.value(SDK + listed)), "the routes are listed")
    answer = sdk.value(
        SDK
        + """
        const error = await failure(client.models.retrieve("nobody/knows"));
        out({ owner: (await client.models.retrieve("b/b-1")).owned_by, error: facts(error) });
        """
    )
    assert answer["owner"] == "b"
    assert (answer["error"]["kind"], answer["error"]["code"]) == ("NotFoundError", "model_not_found")


def test_an_error_has_its_class_its_code_and_its_job_and_is_not_paid_again(sdk: Node, place: Workshop) -> None:
    filtered = {"message": "The response was filtered: hate.", "code": "content_filter"}
    for upstream in ("a", "b"):
        place.providers.behave(upstream, status=400, error=filtered)
    answer = sdk.value(
        SDK
        + """
        const refused = await failure(chats.create(hello));
        const streamed = await failure(chats.create({ ...hello, stream: true }));
        const wrong = await failure(chats.create({ ...hello, messages: [] }));
        const stranger = await failure(client.withOptions({ apiKey: "wrong" }).chat.completions.create(hello));
        out([refused, streamed, wrong, stranger].map(facts));
        """
    )
    refused, streamed, wrong, stranger = answer
    for each in (refused, streamed):
        assert (each["kind"], each["status"], each["code"]) == ("BadRequestError", 400, "content_filter")
        assert "filtered: hate" in each["message"] and each["job"] and each["request"]
    assert (wrong["kind"], wrong["type"], wrong["param"]) == (
        "BadRequestError",
        "invalid_request_error",
        "body.messages",
    )
    assert (stranger["kind"], stranger["status"]) == ("AuthenticationError", 401)
    assert calls(place) == 2  # one for each of the two jobs


def test_a_live_stream_that_breaks_off_is_an_error_of_the_sdk(sdk: Node, place: Workshop) -> None:
    place.providers.behave("a", fault="cut", text="half of an answer", chunks=8, chunk_gap=0.1)
    place.providers.behave("b", text="another answer")
    answer = sdk.value(
        SDK
        + """
        const stream = await chats.create({ ...hello, stream: true }, { headers: { "x-failover-stream": "live" } });
        let text = "";
        const read = async () => { for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ""; };
        out({ error: facts(await failure(read())), text });
        """
    )
    assert answer["error"]["kind"] == "APIError" and answer["error"]["code"] == "broken_off"
    assert answer["text"] and "half of an answer".startswith(answer["text"])


def test_a_retry_of_the_sdk_is_not_paid_again(sdk: Node, place: Workshop) -> None:
    place.providers.behave("a", latency=[1.0, 1.0])
    answer = sdk.value(
        SDK
        + """
        const hasty = client.withOptions({ timeout: 300, maxRetries: 8 });
        const { data, response } = await hasty.chat.completions.create(hello).withResponse();
        out({ text: data.choices[0].message.content, job: response.headers.get("x-failover-job-id") });
        """
    )
    assert answer["text"] == "You said: hello" and answer["job"]
    assert calls(place) == 1


def test_late_is_one_error_and_one_job(workshop: Workshop, client: redis.Redis) -> None:
    with serving(workshop, worker=False, max_time_to_answer_seconds=0.3) as one:
        late = one.node().value(SDK + "out(facts(await failure(chats.create(hello))));")
    assert (late["kind"], late["status"], late["code"]) == ("InternalServerError", 503, "late")
    assert texts(client.lrange("rq:queue:ai-tasks", 0, -1)) == [late["job"]]


@contextlib.contextmanager
def router(sdk: Node) -> Iterator[httpx.Client]:
    """The example router.mjs, and a client of it."""
    process = sdk.start("router.mjs", PORT=str(free_port()))
    try:
        assert process.stdout is not None
        with httpx.Client(base_url=process.stdout.readline().strip(), timeout=30, trust_env=False) as http:
            yield http
    finally:
        process.kill()
        process.communicate()


ASKED = {"messages": [{"role": "user", "content": "hello"}], "idempotencyKey": "u7:note-4711"}


def test_the_router_example_answers_from_warm_when_hot_is_down(workshop: Workshop) -> None:
    workshop.providers.behave("a", status=503)
    with serving(workshop) as one, router(one.node()) as http:
        answer = http.post("", json=ASKED)
        assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"] == "You said: hello"
        assert answer.json()["model"] == "b-1"
        wrong = http.post("", json={"messages": []})
        assert wrong.status_code == 400 and "messages" in wrong.json()["error"]["message"]
        assert http.post("", content="no JSON").status_code == 400


def test_the_router_example_says_queued_and_the_same_key_gets_the_answer(
    workshop: Workshop, producer: Producer
) -> None:
    with serving(workshop, worker=False, max_time_to_answer_seconds=0.3) as one, router(one.node()) as http:
        queued = http.post("", json=ASKED)
        assert (queued.status_code, queued.json()["status"]) == (202, "queued")
        workshop.worker()
        job = queued.json()["id"]
        until(lambda: producer.fetch(job).status is JobStatus.DONE, "the worker has answered")
        answer = http.post("", json=ASKED)
        assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"] == "You said: hello"
    assert calls(workshop) == 1


def test_the_other_examples_for_node(sdk: Node, place: Workshop) -> None:
    assert sdk.printed("stream.mjs") == f"You said: {LISBON}\n"
    assert sdk.printed("structured.mjs") == "{ client: 'Lisbon', next_step: 'Lisbon', urgent: true }\n"
    assert place.providers.account("a")["last"]["response_format"]["type"] == "json_schema"


def test_vercels_ai_sdk(shared: Served, place: Workshop) -> None:
    said, lisbon, tokens = shared.node("frameworks").printed("vercel-ai.mjs").splitlines()
    assert (said, lisbon) == ("You said: Ping", f"You said: {LISBON}")
    assert int(tokens.removesuffix(" tokens")) > 0
    assert calls(place) == 2


def test_langchain(shared: Served, place: Workshop) -> None:
    said, lisbon, parsed = shared.node("frameworks").printed("langchain.mjs").splitlines()
    assert (said, lisbon) == ("You said: Ping", f"You said: {LISBON}")
    assert parsed == "{ client: 'Lisbon', urgent: true }"
    assert calls(place) == 3


@pytest.mark.parametrize("name", ["node", "frameworks"])
def test_a_lock_file_names_no_registry(name: str) -> None:
    packages: dict[str, dict[str, Any]] = json.loads((ROOT / "examples" / name / "package-lock.json").read_text())[
        "packages"
    ]
    assert all("resolved" not in package for package in packages.values())
    assert all("integrity" in package for path, package in packages.items() if path)
