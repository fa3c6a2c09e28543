"""A TCP proxy, a process of its own: a link that can be cut, clogged, half-opened and slowed.

    python -m tests.chaos.storm.proxy HOST PORT

It prints the port that it listens on. A line on standard input is an order, answered by a line with what it did so far,
{"open": 4, "cut": 3, "held": 1024, "halved": 2, "slowed": 99}; `held` and `slowed` are bytes:

{"do": "cut"}                             reset every connection, on both sides
{"do": "hold"}                            let nothing through, in either direction, new connections neither
{"do": "halve", "share": 0.5}             end the far side of connections, and say nothing to the near one
{"do": "slow", "seconds": 0.1}            let everything through so much later
{"do": "heal"}                            let everything through again; who holds half a connection learns of it now
{"do": "look"}

What is held is let through later, as a network does that heals. Who asks the far side of half a connection for anything
hears nothing until then: a kernel's own keepalive, which would find out, cannot look through a proxy.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

PIECE = 65_536
# Closing sends a reset at once.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True, eq=False)
class Pair:
    """One connection: its near side, a client's, and its far side, a server's."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    halved: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self) -> None:
        """End both sides without a word."""
        self.over.set()
        _reset(self.near)
        _reset(self.far)


@dataclass(slots=True)
class Link:
    """The proxy's state; `open` is a gate that is shut while nothing may come through."""

    host: str
    port: int
    open: asyncio.Event = field(default_factory=asyncio.Event)
    delay: float = 0.0
    pairs: set[Pair] = field(default_factory=set)
    cut: int = 0
    held: int = 0
    halved: int = 0
    slowed: int = 0

    async def serve(self, near_in: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        """Carry one client's connection."""
        await self.open.wait()
        try:
            far_in, far = await asyncio.open_connection(self.host, self.port)
        except OSError:
            _reset(near)
            return
        pair = Pair(near, far)
        self.pairs.add(pair)
        try:
            await asyncio.gather(self._carry(pair, near_in, far), self._carry(pair, far_in, near))
        except OSError:
            pair.reset()
        finally:
            self.pairs.discard(pair)
            near.close()
            far.close()

    async def _carry(self, pair: Pair, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while piece := await source.read(PIECE):
            if not self.open.is_set():
                self.held += len(piece)
                await self.open.wait()
            if self.delay:
                self.slowed += len(piece)
                await asyncio.sleep(self.delay)
            if pair.halved:
                self.held += len(piece)
                continue
            sink.write(piece)
            await sink.drain()
        if not self.open.is_set():
            await self.open.wait()
        if pair.halved and sink is pair.near:
            await pair.over.wait()  # it is told nothing, until the link is healed or it hangs up itself
        pair.over.set()
        with suppress(OSError):
            sink.write_eof()

    def obey(self, order: Mapping[str, Any]) -> dict[str, int]:
        """Do what the harness says, and say what was done so far."""
        if order["do"] == "cut":
            for pair in list(self.pairs):
                pair.reset()
                self.cut += 1
        elif order["do"] == "hold":
            self.open.clear()
        elif order["do"] == "halve":
            self._halve(order["share"])
        elif order["do"] == "slow":
            self.delay = order["seconds"]
        elif order["do"] == "heal":
            self._heal()
        return {
            "open": len(self.pairs),
            "cut": self.cut,
            "held": self.held,
            "halved": self.halved,
            "slowed": self.slowed,
        }

    def _halve(self, share: float) -> None:
        pairs = sorted(self.pairs, key=id)
        for pair in pairs[: max(1, round(share * len(pairs)))]:
            pair.halved = True
            _reset(pair.far)
            self.halved += 1

    def _heal(self) -> None:
        self.delay = 0.0
        self.open.set()
        for pair in [pair for pair in self.pairs if pair.halved]:
            pair.reset()
            self.pairs.discard(pair)


def _reset(writer: asyncio.StreamWriter) -> None:
    raw: socket.socket | None = writer.get_extra_info("socket")
    with suppress(OSError):
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


async def main(host: str, port: int) -> None:
    """Carry connections until the harness is gone: its end closes our standard input."""
    link = Link(host, port)
    link.open.set()
    server = await asyncio.start_server(link.serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201  where to find us
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        print(json.dumps(link.obey(json.loads(line))), flush=True)  # noqa: T201  the answer


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
