"""A provider that costs next to nothing: an asyncio protocol that answers after its latency, and counts.

    python -m bench.peers.provider LOW HIGH [CHUNKS]      prints its port

A body with `"stream":true` gets CHUNKS events, CHUNK_SECONDS apart, after the latency.

GET /stats: {"answered", "first", "last", "most"}: answers sent, Unix time of the first request and of the last answer, most
requests in flight. GET /reset forgets them.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

from bench.peers.workload import answer

_BODY = answer()
_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
    + str(len(_BODY)).encode()
    + b"\r\n\r\n"
    + _BODY
)
CHUNK_SECONDS = 0.015
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _chunk(text: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text)


def _event(choices: list[dict[str, object]], **more: object) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1764288000, "model": "gpt-4o-mini"}
    return _chunk(b"data: " + json.dumps({**head, "choices": choices, **more}).encode() + b"\n\n")


_TOKEN = _event([{"index": 0, "delta": {"content": "word "}, "finish_reason": None}])
_END = (
    _event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    + _event([], usage={"prompt_tokens": 120, "completion_tokens": 130, "total_tokens": 250})
    + _chunk(b"data: [DONE]\n\n")
    + _chunk(b"")
)


class Counts:
    def __init__(self) -> None:
        self.answered = self.in_flight = self.most = 0
        self.first = self.last = 0.0

    def began(self) -> None:
        self.first = self.first or time.time()
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)

    def ended(self) -> None:
        self.in_flight -= 1
        self.answered += 1
        self.last = time.time()

    def told(self) -> bytes:
        named = {"answered": self.answered, "first": self.first, "last": self.last, "most": self.most}
        text = json.dumps(named).encode()
        return b"HTTP/1.1 200 OK\r\ncontent-length: " + str(len(text)).encode() + b"\r\n\r\n" + text


class Connection(asyncio.Protocol):
    """One request at a time, whose head and body may come in pieces."""

    counts = Counts()
    latency = (0.0, 0.0)
    chunks = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, ends, body = self._received.partition(b"\r\n\r\n")
        if not ends:
            return
        if head.startswith(b"GET"):
            if head.startswith(b"GET /reset"):
                Connection.counts = Counts()
            self._received = b""
            self._transport.write(self.counts.told())  # type: ignore[attr-defined]
            return
        _, _, after = head.lower().partition(b"content-length:")
        if len(body) < int(after.split(b"\r\n", 1)[0]):
            return
        self._received = b""
        self.counts.began()
        seconds = random.uniform(*self.latency)
        if b'"stream":true' in body.replace(b" ", b""):
            asyncio.get_running_loop().call_later(seconds, self._begin_stream)
        elif seconds > 0:
            asyncio.get_running_loop().call_later(seconds, self._answer)
        else:
            self._answer()

    def _begin_stream(self) -> None:
        self._transport.write(_HEAD)  # type: ignore[attr-defined]
        self._stream(self.chunks)

    def _stream(self, left: int) -> None:
        if left:
            self._transport.write(_TOKEN)  # type: ignore[attr-defined]
            asyncio.get_running_loop().call_later(CHUNK_SECONDS, self._stream, left - 1)
            return
        self.counts.ended()
        self._transport.write(_END)  # type: ignore[attr-defined]

    def _answer(self) -> None:
        self.counts.ended()
        self._transport.write(_ANSWER)  # type: ignore[attr-defined]


async def main() -> None:
    Connection.latency = (float(sys.argv[1]), float(sys.argv[2]))
    Connection.chunks = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
