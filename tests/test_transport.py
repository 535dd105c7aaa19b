"""The transport of provider calls, against a server that writes a stream piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from worker.network import DIRECT
from worker.providers.transport import Transport

PIECES, GAP_SECONDS = 100, 0.005


@contextlib.asynccontextmanager
async def streaming_server(*, cut: bool = False) -> AsyncIterator[str]:
    """Its URL. Each answer is PIECES chunks; `cut`: the connection ends before the last one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(PIECES):
            writer.write(b"3\r\n%03d\r\n" % number)
            await writer.drain()
            await asyncio.sleep(GAP_SECONDS)
        if not cut:
            writer.write(b"0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}/"


async def pieces_of(url: str, gather: float) -> list[bytes]:
    transport = Transport(1, DIRECT, connect_seconds=5.0)
    try:
        response = await transport.post(url, {}, b"{}")
        try:
            return [chunk async for chunk in response.chunks(lambda: gather)]
        finally:
            response.close()
    finally:
        await transport.close()


WHOLE = b"".join(b"%03d" % number for number in range(PIECES))


def test_bytes_gather_while_nobody_waits_for_them() -> None:
    async def both() -> tuple[list[bytes], list[bytes]]:
        async with streaming_server() as url:
            return await pieces_of(url, 0.0), await pieces_of(url, 0.1)

    each, gathered = asyncio.run(both())
    assert b"".join(each) == b"".join(gathered) == WHOLE
    assert len(gathered) < len(each) / 3


def test_a_stream_that_breaks_while_bytes_gather_is_broken() -> None:
    async def read() -> None:
        async with streaming_server(cut=True) as url:
            await pieces_of(url, 0.1)

    try:
        asyncio.run(read())
    except Exception as error:  # noqa: BLE001 - the library's own
        assert type(error).__name__ == "ClientPayloadError"
    else:
        raise AssertionError("it was taken for whole")


def test_a_call_after_a_connection_that_ended_while_bytes_gathered_goes_out_on_another_one() -> None:
    async def two() -> list[int]:
        async with streaming_server() as url:
            transport = Transport(1, DIRECT, connect_seconds=5.0)
            found = []
            for _ in range(2):
                response = await transport.post(url, {}, b"{}")
                found.append(sum([len(chunk) async for chunk in response.chunks(lambda: 0.05)]))
                response.close()
            await transport.close()
            return found

    assert asyncio.run(two()) == [len(WHOLE)] * 2
