"""The other side: takes its time, does what a key stands for, and says how often it was asked. For a bare Python."""

from __future__ import annotations

import asyncio
import json

TAKES_SECONDS = 0.3
asked: dict[str, int] = {}


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    if lines[0].startswith("POST"):
        await asyncio.sleep(TAKES_SECONDS)
        key = headers["idempotency-key"]
        asked[key] = asked.get(key, 0) + 1
        body = json.dumps(asked[key])
    else:
        body = json.dumps(asked)
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
    await writer.drain()
    writer.close()


async def serve() -> None:
    """Serve until killed."""
    server = await asyncio.start_server(answer, "0.0.0.0", 8000)  # noqa: S104  within its container
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
