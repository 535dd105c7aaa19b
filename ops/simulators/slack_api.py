"""A simulated Slack with the methods and limits that notifications need, over real HTTP, for tests, drills and benchmarks.

chat.postMessage, chat.update, conversations.history, conversations.replies and an incoming webhook. It accepts one message
a second for each channel (else 429 with Retry-After), refuses what Slack refuses (blocks that are too long, a wrong token),
and can be down, or accept a message and break the connection before the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from ops.simulators import http_server

TOKEN, CHANNEL = "xoxb-simulated", "C0SIMULATED"
HEADER, SECTION, BLOCKS, TOTAL = 150, 3000, 50, 13_200
MESSAGE_SECONDS = 1.0  # https://docs.slack.dev/apis/web-api/rate-limits

Mode = Literal["up", "down", "hangs", "takes and resets", "resets"]


@dataclass
class Posted:
    """A message. `thread`: ts of the message that it replies to; `broadcast`: also in the channel; `texts`: all
    versions."""

    ts: str
    texts: list[str]
    blocks: list[dict[str, Any]]
    thread: str = ""
    broadcast: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    at: float = 0.0

    def whole(self) -> str:
        """All texts of its blocks."""
        return "\n".join(_texts(self.blocks))


@dataclass
class Slack:
    """The state of the simulated Slack. Any thread may read and change it."""

    mode: Mode = "up"
    may_look: bool = True  # the bot has channels:history
    seconds: float = MESSAGE_SECONDS  # between two messages of a channel
    messages: list[Posted] = field(default_factory=list)
    edits: int = 0
    requests: int = 0
    limited: int = 0
    url: str = ""
    _last: float = 0.0
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a worker posts to it as a bot."""
        return {"SLACK_BOT_TOKEN": TOKEN, "SLACK_CHANNEL": CHANNEL, "SLACK_API_URL": f"{self.url}/api"}

    @property
    def webhook_environment(self) -> dict[str, str]:
        return {"SLACK_WEBHOOK_URL": f"{self.url}/services/T0/B0/secret"}

    def in_channel(self) -> list[Posted]:
        """The messages in the channel itself, without those only in threads."""
        return [message for message in self.messages if not message.thread or message.broadcast]

    def in_thread(self, ts: str) -> list[Posted]:
        return [message for message in self.messages if message.thread == ts]

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/api/chat.postMessage", self._post)
        app.router.add_post("/api/chat.update", self._update)
        app.router.add_post("/api/conversations.history", self._history)
        app.router.add_post("/api/conversations.replies", self._history)
        app.router.add_post("/services/{rest:.*}", self._hook)
        return app

    async def _post(self, request: web.Request) -> web.StreamResponse:
        form = await self._form(request)
        if isinstance(form, web.StreamResponse):
            return form
        if problem := _wrong(form):
            return web.json_response({"ok": False, "error": problem})
        if limited := self._limited():
            return limited
        posted = self._take(form)
        if self.mode == "takes and resets":
            return _reset(request)
        return web.json_response({"ok": True, "channel": CHANNEL, "ts": posted.ts})

    async def _hook(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if refused := await self._refused(request):
            return refused
        form = json.loads(await request.read())
        if problem := _wrong(form):
            return web.Response(status=400, text=problem)
        if limited := self._limited():
            return limited
        self._take(form)
        if self.mode == "takes and resets":
            return _reset(request)
        return web.Response(text="ok")

    async def _update(self, request: web.Request) -> web.StreamResponse:
        form = await self._form(request)
        if isinstance(form, web.StreamResponse):
            return form
        found = next((message for message in self.messages if message.ts == form.get("ts")), None)
        problem = _wrong(form) or ("" if found else "message_not_found")
        if problem or found is None:
            return web.json_response({"ok": False, "error": problem})
        found.texts.append(form["text"])
        found.blocks = form["blocks"]
        self.edits += 1
        return web.json_response({"ok": True, "channel": CHANNEL, "ts": found.ts})

    async def _history(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if refused := await self._refused(request):
            return refused
        if not self.may_look:
            return web.json_response({"ok": False, "error": "missing_scope"})
        query = {**request.query, **await request.post()}
        oldest, thread = float(str(query.get("oldest", 0))), query.get("ts", "")
        found = [m for m in self.messages if m.at >= oldest and (m.thread == thread or (not thread and m.broadcast))]
        messages = [{"ts": message.ts, "metadata": message.metadata} for message in found]
        return web.json_response({"ok": True, "messages": messages, "has_more": False})

    async def _form(self, request: web.Request) -> dict[str, Any] | web.StreamResponse:
        self.requests += 1
        if refused := await self._refused(request):
            return refused
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"ok": False, "error": "invalid_auth"})
        form: dict[str, Any] = json.loads(await request.read())
        if form.get("channel") not in (CHANNEL, "#ops"):
            return web.json_response({"ok": False, "error": "channel_not_found"})
        return form

    async def _refused(self, request: web.Request) -> web.StreamResponse | None:
        if self.mode == "hangs":
            await asyncio.sleep(3600)
        if self.mode == "down":
            return web.Response(status=503, text="upstream unavailable")
        if self.mode == "resets":
            return _reset(request)
        return None

    def _limited(self) -> web.StreamResponse | None:
        now = time.monotonic()
        if now - self._last < self.seconds:
            self.limited += 1
            body = {"ok": False, "error": "ratelimited"}
            return web.json_response(body, status=429, headers={"Retry-After": "1"})
        self._last = now
        return None

    def _take(self, form: dict[str, Any]) -> Posted:
        posted = Posted(
            f"{int(time.time())}.{next(self._numbers):06d}",
            [form["text"]],
            form["blocks"],
            form.get("thread_ts", ""),
            bool(form.get("reply_broadcast")),
            form.get("metadata") or {},
            time.time(),
        )
        self.messages.append(posted)
        return posted


@contextlib.contextmanager
def running() -> Iterator[Slack]:
    """A simulated Slack in a thread of this process."""
    slack = Slack()
    with http_server.running(slack.app()) as slack.url:
        yield slack


def _reset(request: web.Request) -> web.StreamResponse:
    """Break the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _wrong(form: dict[str, Any]) -> str:
    """Slack's error code for a message that it refuses; "" if it accepts it."""
    blocks = form.get("blocks") or []
    texts = _texts(blocks)
    too_long = any(
        len(block["text"]["text"]) > (HEADER if block["type"] == "header" else SECTION)
        for block in blocks
        if block["type"] in ("header", "section")
    )
    if len(blocks) > BLOCKS or too_long or not all(texts) or sum(map(len, texts)) > TOTAL:
        return "invalid_blocks"
    return "" if form.get("text") else "no_text"


def _texts(node: Any) -> list[str]:
    if isinstance(node, list):
        return [text for item in node for text in _texts(item)]
    if isinstance(node, dict):
        own = [node["text"]] if isinstance(node.get("text"), str) else []
        return own + [text for key, value in node.items() if not isinstance(value, str) for text in _texts(value)]
    return []
