"""What people, files and providers do wrong around routing, and what must not come of it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis

from ops.simulators.provider import Control
from producer import Producer, keyspace
from producer.errors import ConfigurationError
from producer.job import JobStatus, LLMJob
from producer.policy import load_yaml, read_policies
from producer.trail import Planned
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.routes import asked, done, routing, two_routes
from tests.support.workshop import Workshop
from worker.providers.assembly import Assembly
from worker.queue.trail import spent_micros
from worker.routes.prices import Price, billed_micros
from worker.routes.route import Route, read_routes
from worker.routes.schema import RouteEntry, read_map
from worker.routes.tokens import estimated, longest_answer

LETTERS = "abcdefghij"
BOMB = "a: &a [x]\n" + "\n".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairwise(LETTERS))


def tenants(workshop: Workshop, text: str) -> None:
    (Path(workshop.environment["POLICIES_DIR"]) / "tenants.yaml").write_text(f"version: 1\ntenants: {text}\n")


def released(workshop: Workshop, worker: Any) -> int:
    return len(workshop.events(worker, "released"))


def test_a_tenant_whose_key_is_refused_holds_up_nobody(workshop: Workshop, producer: Producer) -> None:
    workshop.policy()
    tenants(workshop, "{default: {}, acme: {keys: {a: ACME_KEY}}}")
    workshop.routes(hot=[{"upstream": "a", "apiKeyEnv": "A_KEY"}])
    workshop.providers.behave("a", keys=["sk-ours"])
    worker = workshop.worker("--concurrency", "5", A_KEY="sk-ours", ACME_KEY="sk-acme")
    theirs = [receipt.job_id for receipt in producer.enqueue_many([chat(str(n), tenant_id="acme") for n in range(30)])]
    ours = [receipt.job_id for receipt in producer.enqueue_many([chat(str(n)) for n in range(10)])]
    until(lambda: all(producer.ended(ours)), "ours are done")
    assert not any(producer.ended(theirs))
    assert released(workshop, worker) == 0


def test_a_tenants_job_never_goes_out_without_a_key(workshop: Workshop, producer: Producer) -> None:
    """A key that is held while its job waits to ask again; the anonymous call's 401 would rest everybody's account."""
    workshop.policy(executions=1)
    tenants(workshop, "{default: {}, acme: {keys: {a: ACME_KEY}}}")
    workshop.routes(hot=[{"upstream": "a", "apiKeyEnv": "A_KEY"}])
    workshop.providers.behave("a", status=429, retry_after="1", times=20)
    workshop.worker("--concurrency", "4", A_KEY="sk-ours", ACME_KEY="sk-acme")
    jobs = [receipt.job_id for receipt in producer.enqueue_many([chat(str(n), tenant_id="acme") for n in range(4)])]
    until(lambda: all(producer.fetch(job).attempts for job in jobs), "each was asked")
    assert {attempt.key for job in jobs for attempt in producer.fetch(job).attempted} == {"environment ACME_KEY"}


def test_a_tenant_that_is_not_listed_uses_the_keys_of_default_and_a_mistyped_provider_is_refused(
    workshop: Workshop, producer: Producer
) -> None:
    workshop.policy()
    tenants(workshop, "{default: {keys: {a: SHARED}}}")
    workshop.routes(hot=[{"upstream": "a", "apiKeyEnv": "A_KEY"}])
    workshop.worker(A_KEY="sk-ours", SHARED="sk-shared")
    assert done(producer, chat(tenant_id="somebody")).attempted[-1].key == "environment SHARED"
    tenants(workshop, "{default: {keys: {openay: SHARED}}}")
    ended = workshop.run("failover-worker", "--burst", A_KEY="x", SHARED="y")
    assert (ended.returncode, "no route uses this provider — there are a" in ended.stderr) == (2, True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("routing.yaml", "version: 1\njob_types: {default: {baseline: 2024-13-45}}"),
        ("routing.yaml", "version: 1\njob_types: &a {default: *a}"),
        ("routing.yaml", "[" * 5000),
        ("routing.yaml", BOMB),
        ("jobs.yaml", "version: 1\njob_types: {default: {backoff_seconds: {first: .inf}}}"),
        ("routes.json", "[" * 200_000),
        ("routes.json", '{"hot": [{"provider": "a", "model": "m", "baseUrl": "http://x", "apiKeyFile": "a\\u0000b"}]}'),
        (
            "routes.json",
            '{"hot": [{"provider": "a", "model": "m", "baseUrl": "http://x", "timeoutSeconds": Infinity}]}',
        ),
        ("routes.json", None),
        ("routing.yaml", None),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_the_worker_works_on(
    workshop: Workshop, producer: Producer, name: str, text: str | None
) -> None:
    workshop.policy()
    two_routes(workshop)
    routing(workshop, max_cost_usd=1)
    worker = workshop.worker()
    folder = Path(workshop.environment["POLICIES_DIR"])
    path = Path(workshop.environment["ROUTES_FILE"]) if name == "routes.json" else folder / name
    path.write_text(text) if text is not None else path.unlink()
    until(lambda: workshop.events(worker, "configuration refused, the old one stays"), "it is refused")
    assert done(producer).route == "a/a-1"
    until(
        lambda: "CONFIGURATION the configuration was refused" in workshop.run("failover", "status").stdout, "it is told"
    )


def test_a_small_text_that_grows_is_no_yaml() -> None:
    with pytest.raises(ValueError, match="more than 20000 places"):
        load_yaml(BOMB)


def test_a_body_that_breaks_the_dialect_is_not_held_against_the_route(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "a", "api": "anthropic"}], warm=[{"upstream": "b"}])
    workshop.worker()
    for arguments in ('{"a": "\\ud83d"}', "[" * 100_000):
        called = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        body = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [called]}]}
        for _ in range(6):
            assert done(producer, LLMJob.parse({"body": body})).status is JobStatus.DONE
    status = json.loads(workshop.run("failover", "status", "--json").stdout)
    assert [route["health"]["breaker"] for route in status["routes"]] == ["closed", "closed"]


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_halves_of_a_character_in_a_stream_are_put_together(providers: Control, api: str) -> None:
    if api == "openai":
        assembly: Any = Assembly()
        for piece in ("hi \\ud83d", "\\ude00 there \\ud83d"):
            assembly.add(b'{"choices": [{"index": 0, "delta": {"content": "%s"}}]}' % piece.encode())
        assembly.add(b'{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}')
    else:
        from worker.providers.anthropic.answer import Assembly as Native

        assembly = Native()
        assembly.add(b'{"type": "message_start", "message": {"type": "message", "usage": {"input_tokens": 7}}}')
        assembly.add(b'{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}')
        for piece in ("hi \\ud83d", "\\ude00 there \\ud83d"):
            assembly.add(b'{"type": "content_block_delta", "index": 0, "delta": {"text": "%s"}}' % piece.encode())
        ended = '{"stop_reason": "end_turn"}, "usage": {"output_tokens": 3, "input_tokens": null}'
        assembly.add(f'{{"type": "message_delta", "delta": {ended}}}'.encode())
        assert assembly.completion()["usage"]["prompt_tokens"] == 7
    text = assembly.completion()["choices"][0]["message"]["content"]
    assert text.startswith("hi \N{GRINNING FACE} there ")
    text.encode()


def test_a_disabled_only_route_under_bypass_makes_no_hot_loop(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    worker = workshop.worker(BYPASS_ROUTER="true")
    assert done(producer).route == "a/a-1"
    assert workshop.run("failover", "routes", "disable", "a/a-1").returncode == 0
    job = producer.enqueue(chat())
    waits = until(lambda: (r := producer.fetch(job)).status is JobStatus.PARKED and r, "it waits")
    assert "route a/a-1 is disabled" in str(waits.waiting_for)
    assert released(workshop, worker) == 0
    assert "CONFIGURATION BYPASS_ROUTER is on" in workshop.run("failover", "status").stdout
    workshop.run("failover", "routes", "enable", "a/a-1")
    assert producer.wait(job, 30).status is JobStatus.DONE


def test_the_kill_switch_and_the_bypass_work_while_the_files_are_broken(workshop: Workshop, producer: Producer) -> None:
    workshop.policy()
    two_routes(workshop)
    routing(workshop, pin=["b/b-1"])
    workshop.worker()
    assert done(producer).route == "b/b-1"
    Path(workshop.environment["ROUTES_FILE"]).write_text("{")
    (Path(workshop.environment["POLICIES_DIR"]) / "jobs.yaml").write_text("{")
    assert workshop.run("failover", "routes", "disable", "b/b-1").returncode == 0
    assert workshop.run("failover", "pause", "--provider", "b").returncode == 0
    (workshop.folder / ".env").write_text("BYPASS_ROUTER=true\n")
    until(lambda: producer.wait(producer.enqueue(chat()), 2).route == "a/a-1", "every job goes to the first route")


def test_a_switch_is_never_refused_for_a_pin(workshop: Workshop, producer: Producer) -> None:
    workshop.policy()
    two_routes(workshop)
    routing(workshop, pin=["b/b-1"])
    workshop.worker(ENABLE_WARM_FALLBACK="false")
    job = producer.enqueue(chat())
    waits = until(lambda: (r := producer.fetch(job)).status is JobStatus.PARKED and r, "it waits")
    assert "b/b-1: ENABLE_WARM_FALLBACK is off" in str(waits.waiting_for)


def test_an_operators_word_frees_a_parked_key(workshop: Workshop, producer: Producer) -> None:
    workshop.policy()
    tenants(workshop, "{default: {}, acme: {keys: {a: ACME_KEY}}}")
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.providers.behave("a", status=402)
    workshop.worker(ACME_KEY="sk-acme")
    job = producer.enqueue(chat(tenant_id="acme"))
    until(
        lambda: producer.fetch(job).attempts == 1 and producer.fetch(job).status is JobStatus.PARKED, "the bill is due"
    )
    told = "and is skipped: environment ACME_KEY of tenant acme"
    until(lambda: told in workshop.run("failover", "status").stdout, "status tells of the key")
    workshop.providers.behave("a")
    assert workshop.run("failover", "routes", "enable", "a/a-1").returncode == 0
    assert producer.wait(job, 20).status is JobStatus.DONE


def test_what_a_route_refused_once_the_next_job_does_not_send(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.providers.behave("a", unknown=["temperature"])
    workshop.worker()
    job = LLMJob.parse({"body": {**chat().body, "temperature": 0.2}})
    assert [attempt.outcome for attempt in done(producer, job).attempted] == ["unsupported_parameter", "ok"]
    (later,) = done(producer, job).attempted
    assert (later.outcome, later.dropped) == ("ok", ("temperature",))


@pytest.mark.parametrize(
    ("key", "echoed", "stored"),
    [
        ("sk-long-and-secret", "sk-long-and-secret", "[key]"),
        ("sk-long/and+secret", "sk-long\\/and+secret", "[key]"),
        ("sk-long-and-secret", "\\u0073k-long-and-secret", "[key]"),
        ("test", "the latest", "the latest"),
    ],
)
def test_an_echo_is_cut_out_however_it_is_written_and_a_word_is_not(
    workshop: Workshop, producer: Producer, key: str, echoed: str, stored: str
) -> None:
    from aiohttp import web

    from ops.simulators import http_server

    async def answer(request: web.Request) -> web.Response:
        message = f'{{"choices": [{{"message": {{"content": "{echoed}"}}, "finish_reason": "stop"}}]}}'
        return web.Response(text=message, content_type="application/json")

    app = web.Application()
    app.router.add_post("/chat/completions", answer)
    with http_server.running(app) as url:
        workshop.routes(hot=[{"upstream": "a", "baseUrl": url, "apiKeyEnv": "A_KEY"}])
        workshop.worker(A_KEY=f"{key},sk-another-one-of-them")
        assert done(producer).text == stored


def test_images_are_not_counted_as_text_nor_absurd_numbers_as_tokens() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_400_000}}
    assert estimated({"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, image]}]}) < 2000
    assert longest_answer({"max_tokens": 10**400}) == 10**9
    route = Route("a", "hot", RouteEntry(provider="a", model="m", base_url="x", price=Price(input=1, output=1)), "x")
    assert route.price is not None
    for absurd in (10**400, True, float("nan"), -1, "7", None, 1.5):
        assert billed_micros(route.price, {"prompt_tokens": absurd, "completion_tokens": 1}) is None
    assert billed_micros(route.price, {"prompt_tokens": 7.0, "completion_tokens": 1}) == 8


def test_what_a_job_has_cost_is_not_forgotten_with_its_attempts() -> None:
    planned = Planned(execution=9, order="listed", candidates=("a",), spent_usd=0.06)
    assert spent_micros([planned]) == 60_000


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{"name": "x"}, {"name": "x"}, {"name": "x#2"}], "two routes are named x#2"),
        ([{"name": "a\nb"}], "name"),
        ([{"name": " "}], "name"),
        ([{"apiKeyEnv": "sk-proj-4711"}], "must be the name of an environment variable, not its value"),
    ],
)
def test_names_that_would_mislead_are_refused(tmp_path: Path, entries: list[dict[str, Any]], said: str) -> None:
    base = {"provider": "a", "model": "m", "baseUrl": "http://x"}
    (tmp_path / "routes.json").write_text(json.dumps({"hot": [{**base, **entry} for entry in entries]}))
    with pytest.raises(ConfigurationError) as refused:
        read_map(tmp_path / "routes.json")
    assert said in str(refused.value)
    assert "4711" not in str(refused.value)


def test_a_map_of_canaries_alone_is_refused(tmp_path: Path) -> None:
    entry = {"provider": "a", "model": "m", "baseUrl": "http://x", "apiKeyEnv": "", "canary": 5}
    (tmp_path / "routes.json").write_text(json.dumps({"hot": [entry]}))
    with pytest.raises(ConfigurationError, match="all usable routes are canaries"):
        read_routes(tmp_path / "routes.json", {})


def test_infinite_policies_are_refused(tmp_path: Path) -> None:
    (tmp_path / "jobs.yaml").write_text("version: 1\njob_types: {default: {deadline_seconds: .inf}}\n")
    with pytest.raises(ConfigurationError):
        read_policies(tmp_path / "jobs.yaml")


def test_a_truncated_body_is_not_paid_for_as_prose(workshop: Workshop, client: redis.Redis) -> None:
    two_routes(workshop)
    (workshop.folder / "bad.json").write_text('{"messages": [{"role": "user"')
    ended = workshop.run("failover", "submit", "--file", "bad.json")
    assert (ended.returncode, "begins with { but is not a chat body" in ended.stderr) == (2, True)
    assert client.llen(keyspace.queue("ai-tasks")) == 0
    assert asked(workshop, "a") == 0
