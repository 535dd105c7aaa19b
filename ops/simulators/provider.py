"""A misbehaving provider over real HTTP, for the demo, the tests, the drills and the benchmarks. It speaks OpenAI's chat
completions, and at /messages Anthropic's Messages.

    python -m ops.simulator --port 8089

One server plays any number of upstreams. The first part of the path is the upstream, so a route's base URL is
`http://127.0.0.1:8089/anthropic/v1`. Its behaviour can be changed at any time:

    POST /_admin/anthropic   {"status": 503}          every answer is a 503
    POST /_admin/anthropic   {}                       healthy again
    GET  /_admin/anthropic                            its requests and answers
    GET  /_admin/anthropic/log                        each request: when it came, its status, the tokens of its answer
    DELETE /_admin                                    resets all upstreams

The fields of a behaviour are those of `Behaviour`. Requests are counted as a provider bills them: a
received request counts, even if its answer was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from ops.simulators import anthropic_messages, http_server
from ops.simulators.behaviour import Behaviour, Upstream, completion, refusal, stream_events
from producer.errors import first_problem


class Simulator:
    """The server's state: upstreams by name, created at first use."""

    def __init__(self) -> None:
        self.upstreams: dict[str, Upstream] = {}
        self._ids = itertools.count(1)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/_admin/{upstream}", self._behave)
        app.router.add_get("/_admin/{upstream}", self._account)
        app.router.add_get("/_admin/{upstream}/log", self._log)
        app.router.add_delete("/_admin", self._forget)
        app.router.add_post("/{upstream}/v1/chat/completions", self._complete)
        app.router.add_post("/{upstream}/v1/messages", self._complete)
        app.router.add_get("/{upstream}/v1/models", self._models)
        return app

    def upstream(self, name: str) -> Upstream:
        return self.upstreams.setdefault(name, Upstream())

    async def _behave(self, request: web.Request) -> web.Response:
        try:
            behaviour = Behaviour.model_validate_json(await request.read() or b"{}")
        except ValidationError as error:
            return web.json_response({"error": {"message": ": ".join(first_problem(error))}}, status=422)
        self.upstream(request.match_info["upstream"]).behave(behaviour)
        return web.json_response(behaviour.model_dump())

    async def _account(self, request: web.Request) -> web.Response:
        upstream = self.upstream(request.match_info["upstream"])
        counts = ("asked", "answered", "prompt_tokens", "completion_tokens", "in_flight", "most_in_flight")
        names = (*counts, "last", "by_key", "answers_by_key")
        return web.json_response({name: getattr(upstream, name) for name in names})

    async def _log(self, request: web.Request) -> web.Response:
        return web.json_response(self.upstream(request.match_info["upstream"]).log)

    async def _forget(self, _request: web.Request) -> web.Response:
        self.upstreams.clear()  # requests in flight keep their upstream
        return web.json_response({})

    async def _models(self, request: web.Request) -> web.Response:
        keys = self.upstream(request.match_info["upstream"]).behaviour.keys
        if keys is not None and _key(request) not in keys:
            return web.json_response({"error": {"message": "Incorrect API key provided"}}, status=401)
        return web.json_response({"object": "list", "data": []})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        upstream = self.upstream(request.match_info["upstream"])
        body = json.loads(await request.read())
        key = request.headers.get("Idempotency-Key", "")
        entry = {"at": time.time(), "key": key, "model": body.get("model"), "status": None, "usage": None}
        upstream.asked += 1
        upstream.log.append(entry)
        upstream.last = body
        upstream.by_key[key] += 1
        upstream.in_flight += 1
        upstream.most_in_flight = max(upstream.most_in_flight, upstream.in_flight)
        try:
            response = await self._answer(request, upstream, body, entry)
            entry["status"] = response.status
            if not response.prepared:
                response.headers.update(upstream.behaviour.headers)
            return response
        finally:
            upstream.in_flight -= 1

    async def _answer(
        self, request: web.Request, upstream: Upstream, body: dict[str, Any], entry: dict[str, Any]
    ) -> web.StreamResponse:
        behaviour = upstream.current()
        if behaviour.fault == "hang":
            await asyncio.sleep(3600)
        if behaviour.latency[1] > 0:
            await asyncio.sleep(random.uniform(*behaviour.latency))  # noqa: S311 - a simulated latency
        if behaviour.fault == "reset":
            _reset(request)
        if behaviour.fault == "garbage":
            return web.Response(body=b"<html>\x00 gateway says no", content_type="text/html")
        natively = request.path.endswith("/messages")
        if refused := refusal(behaviour, body, _key(request)):
            error = anthropic_messages.error(*refused) if natively else {"error": refused[1]}
            return web.json_response(error, status=refused[0])
        if behaviour.status != 200 or behaviour.error is not None or behaviour.body is not None:
            return _error(behaviour, natively=natively)
        if natively and (problem := anthropic_messages.problem(body, request.headers)):
            return web.json_response(anthropic_messages.error(400, {"message": problem}), status=400)
        whole = completion(behaviour, anthropic_messages.chat_body(body) if natively else body, next(self._ids))
        reply = anthropic_messages.message(whole, body) if natively else whole
        if body.get("stream"):
            events = anthropic_messages.events(reply, behaviour.chunks) if natively else stream_events(behaviour, whole)
            response = await _stream(request, behaviour, list(events))
        else:
            payload = json.dumps(reply).encode()
            if behaviour.fault in ("drip", "cut"):
                await _trickle(request, payload, cut=behaviour.fault == "cut")
            response = web.Response(body=payload, content_type="application/json")
        upstream.answered += 1
        upstream.prompt_tokens += whole["usage"]["prompt_tokens"]
        upstream.completion_tokens += whole["usage"]["completion_tokens"]
        upstream.answers_by_key[entry["key"]] += 1
        entry["usage"] = reply["usage"]
        return response


def _key(request: web.Request) -> str:
    return request.headers.get("x-api-key") or request.headers.get("Authorization", "").removeprefix("Bearer ")


def _usual_error(status: int) -> dict[str, Any]:
    """A 400 names a field of the request, as OpenAI does: without it a worker may not take it as a word on the job."""
    if status == 400:
        message = "Invalid value for 'messages[0].content'."
        return {
            "message": message,
            "type": "invalid_request_error",
            "param": "messages[0].content",
            "code": "invalid_value",
        }
    return {"message": f"simulated {status}", "type": "simulated", "code": None}


def _error(behaviour: Behaviour, *, natively: bool) -> web.Response:
    headers = {"Retry-After": behaviour.retry_after} if behaviour.retry_after is not None else None
    if behaviour.body is not None:
        return web.json_response(behaviour.body, status=behaviour.status, headers=headers)
    error = behaviour.error or _usual_error(behaviour.status)
    told = anthropic_messages.error(behaviour.status, error) if natively else {"error": error}
    return web.json_response(told, status=behaviour.status, headers=headers)


def _reset(request: web.Request) -> None:
    """Drop the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError("simulated reset")  # not logged: see http_server.serve


async def _trickle(request: web.Request, payload: bytes, *, cut: bool) -> None:
    """One byte at a time without end (a drip), or half of the answer and a broken connection (a cut)."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(payload))})
    await response.prepare(request)
    if cut:
        await response.write(payload[: len(payload) // 2])
        _reset(request)
    for byte in itertools.cycle(payload[:-1]):
        await response.write(bytes([byte]))
        await asyncio.sleep(0.3)


async def _stream(request: web.Request, behaviour: Behaviour, events: list[bytes]) -> web.StreamResponse:
    """A streamed answer; its fault comes half-way."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    while behaviour.fault == "keep_alive":
        await response.write(b": still thinking\n\n")
        await asyncio.sleep(0.3)
    await response.write(events.pop(0))  # the role, before any token
    await asyncio.sleep(behaviour.first_token)
    for number, event in enumerate(events):
        if behaviour.fault in ("cut", "stall") and number == len(events) // 2:
            if behaviour.fault == "cut":
                _reset(request)
            await asyncio.sleep(3600)
        await response.write(event)
        if behaviour.chunk_gap:
            await asyncio.sleep(behaviour.chunk_gap)
    await response.write_eof()
    return response


class Control:
    """The admin calls of a running simulator, for tests, drills and benchmarks."""

    def __init__(self, url: str) -> None:
        self.url = url

    def base_url(self, upstream: str) -> str:
        """The baseUrl of a route to `upstream`."""
        return f"{self.url}/{upstream}/v1"

    def behave(self, upstream: str, **behaviour: Any) -> None:
        """Set the behaviour of `upstream` (fields of Behaviour); without fields it is healthy."""
        self._call("POST", f"/_admin/{upstream}", json.dumps(behaviour).encode())

    def account(self, upstream: str) -> dict[str, Any]:
        """`asked`, `answered`, `prompt_tokens`, `completion_tokens`, `in_flight`, `most_in_flight`; `by_key`,
        `answers_by_key`: requests and answers by Idempotency-Key."""
        account: dict[str, Any] = json.loads(self._call("GET", f"/_admin/{upstream}"))
        return account

    def log(self, upstream: str) -> list[dict[str, Any]]:
        """Each request: `at` (Unix seconds), `key`, `model`, `status` and `usage` of its answer, None if no
        complete answer was sent."""
        log: list[dict[str, Any]] = json.loads(self._call("GET", f"/_admin/{upstream}/log"))
        return log

    def forget(self) -> None:
        """Reset every upstream: healthy, with no requests."""
        self._call("DELETE", "/_admin")

    def _call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.url + path, data=body, method=method)  # noqa: S310 - our own server
        with urllib.request.urlopen(request) as reply:  # noqa: S310
            answer: bytes = reply.read()
        return answer


@contextlib.contextmanager
def running() -> Iterator[Control]:
    """A simulator in a thread of this process, on a free port."""
    with http_server.running(Simulator().app()) as url:
        yield Control(url)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--port", type=int, default=8089, help="0 takes a free one; the first line printed is the URL")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        app = Simulator().app()
        asyncio.run(http_server.serve(app, arguments.port, lambda port: print(f"http://127.0.0.1:{port}", flush=True)))


if __name__ == "__main__":
    main()
