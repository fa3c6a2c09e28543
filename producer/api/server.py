"""Serving the app: uvicorn, with bounds that it does not have by itself."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from producer.api.app import create_app
from producer.api.log import configure, log
from producer.api.settings import REQUIRED, ApiSettings
from producer.spans import export

HEADER_BYTES = 64 * 1024
KEEP_ALIVE_SECONDS = 15
GRACE_SECONDS = 20


def serve(settings: ApiSettings) -> None:
    """Serve until told to stop (SIGTERM, SIGINT); requests under way get twenty seconds to end.

    Raises:
        SettingsError: If a setting is wrong.
    """
    configure()
    export("surefoot-api", settings.traces)
    app = create_app(settings)
    if settings.api_keys != REQUIRED:
        log.warning("api.open", keys=settings.api_keys, hint="whoever reaches it may do everything")
    # uvicorn sends itself again what it was told to stop by, once it has: that shall be a good end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        http=type("Patient", (Impatient,), {"patience_seconds": settings.api_body_seconds}),
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who is believed what a proxy says of others is the console's to decide
        ws="none",
    )
    with suppress(KeyboardInterrupt):
        Server(config).run()


class Server(uvicorn.Server):
    """uvicorn's, which says where it listens, and tells those who wait for jobs that it stops.

    They would use up the grace of everybody.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where: port 0 is any that is free."""
        await super().startup(sockets=sockets)
        for each in self.servers:
            for listening in each.sockets:
                host, port, *_ = listening.getsockname()
                log.info("api.listening", host=host, port=port)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, once what is under way has ended."""
        super().handle_exit(sig, frame)
        self.config.app.state.stopping.begin()  # type: ignore[union-attr]  # it is our app


class Impatient(H11Protocol):
    """uvicorn's protocol, which by itself waits for ever for somebody's headers, hanging up on whoever takes too long.

    Attributes:
        patience_seconds: For the headers of a request.
    """

    patience_seconds = 10.0
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Stop waiting once there is a request."""
        super().data_received(data)
        if self._is_busy() and self._patience is not None:
            self._patience.cancel()

    def on_response_complete(self) -> None:
        """Wait for the next one."""
        super().on_response_complete()
        if not self._is_busy():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        if self._patience is not None:
            self._patience.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = self.loop.call_later(self.patience_seconds, self._hang_up)

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _hang_up(self) -> None:
        if not self._is_busy() and not self.transport.is_closing():
            self.transport.close()
