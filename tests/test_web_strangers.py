"""Strangers at the web process: requests that never end, answers that nobody reads, more connections than descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse

from ops.web.connections import Connections
from ops.web.draining import Draining
from ops.web.serve import Server
from tests.support.polling import until
from tests.support.web import served
from tests.support.workshop import Workshop
from worker.control.descriptors import raise_descriptor_limit

HALF = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Never: "
WHOLE = b"GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"

Connect = Callable[[bytes], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@contextlib.asynccontextmanager
async def serving(connections: Connections) -> AsyncIterator[Connect]:
    """A small app behind our server; a function that connects and sends some bytes."""
    app = FastAPI()
    app.get("/ok")(lambda: PlainTextResponse("ok"))
    release = asyncio.Event()

    @app.get("/held")
    async def held() -> PlainTextResponse:
        await release.wait()
        return PlainTextResponse("held")

    @app.post("/body")
    async def body(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server, opened = Server(app, connections, Draining()), []
        task = asyncio.create_task(server.serve(sockets=[listener]))

        async def connect(data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            opened.append(writer)
            writer.write(data)
            await writer.drain()
            return reader, writer

        yield connect
        release.set()
        for writer in opened:
            writer.close()
        server.should_exit = True
        await task


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What the server sends until it closes the connection."""
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionResetError:
        return b"reset"


def test_a_request_that_never_arrives_is_closed() -> None:
    """Also one that goes on in drips, and one behind an answer; a slow answer is none of them."""

    async def run() -> None:
        async with serving(Connections(100, head_seconds=0.3, body_seconds=0.3)) as connect:
            held, _ = await connect(b"GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n")
            half, writer = await connect(HALF)
            silent, _ = await connect(b"")
            behind, _ = await connect(WHOLE + HALF)
            slow, _ = await connect(POST + b"x")

            async def drip() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        writer.write(b"x")
                        await writer.drain()
                        await asyncio.sleep(0.02)

            dripping = asyncio.create_task(drip())
            for reader in (half, silent):
                assert (await rest(reader)).startswith((b"HTTP/1.1 408", b"reset"))
            assert (await rest(behind)).startswith(b"HTTP/1.1 200")
            assert not (await rest(slow)).startswith(b"HTTP/1.1 2")
            dripping.cancel()
            assert not held.at_eof()

    asyncio.run(run())


def test_a_request_in_pieces_and_several_on_one_connection_are_answered() -> None:
    async def run() -> None:
        async with serving(Connections(100)) as connect:
            reader, writer = await connect(WHOLE[:20])
            writer.write(WHOLE[20:] + WHOLE + POST + b"x" * 60)
            writer.write(b"x" * 40 + WHOLE[:-2] + b"Connection: close\r\n\r\n")
            answers = await rest(reader)
            assert answers.count(b"HTTP/1.1 200") == 4
            assert b"\r\n\r\n100HTTP/1.1" in answers

    asyncio.run(run())


def test_a_connection_too_many_takes_the_place_of_the_one_that_has_waited_longest() -> None:
    async def run() -> None:
        async with serving(connections := Connections(4)) as connect:
            held, _ = await connect(b"GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n")
            body, _ = await connect(POST + b"x")
            first, _ = await connect(HALF)
            second, _ = await connect(HALF)
            answer, _ = await connect(WHOLE)
            assert (await answer.readline()).startswith(b"HTTP/1.1 200")
            assert await rest(first) in (b"", b"reset")
            for _ in range(20):
                await connect(HALF)
            assert await rest(second) in (b"", b"reset")
            assert await rest(answer) is not None
            assert not held.at_eof()
            assert not body.at_eof()
            assert len(connections.connections) <= 4

    asyncio.run(run())


@contextlib.contextmanager
def strangers(web: httpx.Client, count: int) -> Iterator[None]:
    """So many half-sent requests; after every twentieth one a whole one, which must be answered."""
    address, opened = ("127.0.0.1", web.base_url.port or 0), []
    try:
        for number in range(count):
            opened.append(socket.create_connection(address))
            opened[-1].send(HALF)
            if number % 20 == 19:
                assert web.get("/healthz", headers={"Connection": "close"}).status_code == 200
        yield
    finally:
        for stranger in opened:
            stranger.close()


def test_more_half_sent_requests_than_descriptors_hold_up_nobody(workshop: Workshop) -> None:
    workshop.policy()
    workshop.descriptors = 200
    with served(workshop) as web, strangers(web, 300):
        process = workshop.processes[-1]
        (facts,) = workshop.events(process, "serving")
        assert facts["connections"] == 100
        assert web.get("/readyz").status_code == 200
        assert len(workshop.log(process).splitlines()) < 10, workshop.log(process)


def test_without_free_descriptors_it_says_so_once_and_serves_again(workshop: Workshop) -> None:
    workshop.policy()
    with served(workshop) as web:
        process = workshop.processes[-1]
        used = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used + 20, used + 20))
        address, opened = ("127.0.0.1", web.base_url.port or 0), []
        for _ in range(100):
            opened.append(socket.create_connection(address))
            opened[-1].send(HALF)
        until(lambda: workshop.events(process, "no connection can be accepted now"), "it has noticed")
        assert web.get("/healthz", headers={"Connection": "close"}).status_code == 200
        assert len(workshop.log(process).splitlines()) < 10, workshop.log(process)
        for stranger in opened:
            stranger.close()


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        assert raise_descriptor_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= soft
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
