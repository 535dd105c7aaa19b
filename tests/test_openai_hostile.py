"""/v1 under clients and circumstances that mean no good: huge bodies, a silent Redis, kills at the wrong moment."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from producer.connection import connect
from producer.strict_json import MOST_VALUES
from tests.support.openai_door import chat, door
from tests.support.polling import until
from tests.support.web import TOKEN, served
from tests.support.workshop import Workshop

pytestmark = pytest.mark.server


@pytest.fixture
def shop(workshop: Workshop) -> Workshop:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy(first_token_seconds=20)
    return workshop


def text_of(stream: Any) -> str:
    return "".join(part.choices[0].delta.content or "" for part in stream if part.choices)


def resident(process: Any) -> int:
    """MB that a process has in memory."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    return thread, found


def test_a_small_body_that_would_be_huge_in_memory_is_refused(shop: Workshop) -> None:
    lists = b"[" + b"[]," * (MOST_VALUES // 2) + b"[]]"
    with served(shop) as http:
        for path, content in (
            ("/v1/chat/completions", b'{"messages":'),
            ("/v1/responses", b'{"input":'),
            ("/jobs", b'{"body":'),
        ):
            refused = http.post(path, content=content + lists + b"}")
            assert refused.status_code == 400 and "not JSON that can be read" in refused.json()["error"]["message"]


def test_who_waits_does_not_keep_its_images_in_memory(shop: Workshop) -> None:
    url = "data:image/png;base64," + "A" * 4_000_000
    seen = {"type": "image_url", "image_url": {"url": url}}
    bodies: list[tuple[str, Any]] = [
        ("chat/completions", {"messages": [{"role": "user", "content": [seen]}]}),
        ("responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]}),
    ]
    with served(shop) as http, connect(shop.url) as client, contextlib.ExitStack() as open_ones:
        web, before, waiting = shop.processes[-1], resident(shop.processes[-1]), 0
        for path, body in bodies:
            for stream in (False, True):
                raw = json.dumps({"model": "default", "stream": stream, **body}).encode()
                for _ in range(6):
                    open_ones.enter_context(asking(http, f"/v1/{path}", raw))
                    waiting += 1
        until(lambda: client.llen("rq:queue:ai-tasks") == waiting, "they wait", 60)
        until(lambda: resident(web) - before < waiting * 4, "none keeps its body", 10)


@contextlib.contextmanager
def asking(http: httpx.Client, path: str, raw: bytes) -> Iterator[None]:
    """A client that sends its request and waits."""
    with socket.create_connection((http.base_url.host, http.base_url.port)) as connection:
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {len(raw)}\r\n\r\n"
        connection.sendall(head.encode() + raw)
        yield


def test_a_redis_that_is_silent_for_a_while_breaks_no_wait_and_no_stream(shop: Workshop) -> None:
    shop.providers.behave("a", text="one two three four five six", chunks=6, chunk_gap=0.2)
    with door(shop) as sdk, connect(shop.url) as client:
        stream = chat(sdk, stream=True, extra_headers={"x-failover-stream": "live"})
        events = sdk.responses.create(model="default", input="x", stream=True)
        next(events)
        thread, answers = in_thread(lambda: chat(sdk.with_options(max_retries=0)).choices[0].message.content)
        until(lambda: shop.providers.account("a")["asked"] == 3, "they run")
        client.client_pause(2500, all=True)
        assert text_of(stream) == "one two three four five six"
        assert [each.type for each in events][-1] == "response.completed"
        thread.join(20)
        assert answers == ["one two three four five six"]


def test_a_live_stream_without_words_yet_outlives_the_web_process(shop: Workshop) -> None:
    shop.providers.behave("a", latency=[1.5, 1.5])
    with door(shop) as sdk:
        web, port = shop.processes[-1], str(sdk.base_url.port)
        patient = sdk.with_options(max_retries=30)
        live = {"x-failover-stream": "live"}
        thread, answers = in_thread(lambda: text_of(chat(patient, stream=True, extra_headers=live)))
        until(lambda: shop.providers.account("a")["asked"] == 1, "it runs")
        web.send_signal(signal.SIGKILL)
        web.wait()
        shop.start("failover", "serve", PORT=port, FAILOVER_API_TOKEN=TOKEN)
        thread.join(30)
        assert answers == ["You said: hello"] and shop.providers.account("a")["asked"] == 1


def test_a_live_stream_that_gets_no_word_has_its_own_status(shop: Workshop) -> None:
    shop.providers.behave("a", status=400, error={"message": "filtered: hate", "code": "content_filter"})
    with door(shop) as sdk, pytest.raises(openai.BadRequestError, match="filtered: hate"):
        chat(sdk, stream=True, extra_headers={"x-failover-stream": "live"})


def test_a_response_that_may_come_later_is_a_202_that_can_be_read(shop: Workshop) -> None:
    body, later = {"input": "hello"}, {"Prefer": "respond-async"}
    with served(shop) as http:
        queued = http.post("/v1/responses", json=body, headers=later)
        assert queued.status_code == 202 and queued.json()["status"] == "queued"
        assert http.get(f"/v1/responses/{queued.json()['id']}").json()["output"] == []
        unkept = http.post("/v1/responses", json=body | {"store": False}, headers=later)
        assert unkept.status_code == 202 and http.get(unkept.headers["location"]).json()["status"] == "queued"


def test_a_file_is_kept_no_longer_than_files_are(shop: Workshop) -> None:
    with served(shop) as http:
        for seconds in ("00000000360099999", "3600" + "9" * 5000, "\u00b3600", "59", "-1", "x"):
            form = {"purpose": "batch", "expires_after[seconds]": seconds}
            refused = http.post("/v1/files", files={"file": ("a", b"x")}, data=form)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "expires_after.seconds")
