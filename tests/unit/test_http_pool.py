"""The client that all HTTP actions of a process share survives that many of them are cancelled at the same time."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tasks.http import _clients

# Three times as many as httpx lets a client have at once by default.
MANY = 300


class Slow:
    """A server on the loopback that answers nobody until it is told to."""

    def __init__(self) -> None:
        self.awake = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await self.awake.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # whoever asked was cancelled
        finally:
            writer.close()


async def within(client: httpx.AsyncClient, url: str, seconds: float) -> int:
    """Ask as an attempt does, which is cancelled when its time is over."""
    async with asyncio.timeout(seconds):
        return (await client.get(url)).status_code


async def cancelled_and_asked_again() -> int:
    slow = Slow()
    server = await asyncio.start_server(slow.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    client = _clients.get()
    answers = await asyncio.gather(*(within(client, url, 1.0) for _ in range(MANY)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {TimeoutError}
    slow.awake.set()
    try:
        return await within(client, url, 5)
    finally:
        await client.aclose()
        server.close()


def test_the_client_serves_others_after_many_requests_were_cancelled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert asyncio.run(cancelled_and_asked_again()) == 200
