"""Hearing of breakers that move: Redis tells every process, so that none has to ask while nothing happens.

What is missed, the next question answers: while this does not listen, what is known of a breaker is soon old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any

from redis.asyncio.retry import Retry as RedisRetry
from redis.backoff import NoBackoff

from producer.breaker_words import WORD
from producer.broker import async_redis_pool, is_redis

# Nothing heard for so long: ask for a sign of life; nothing for as long again: connect anew.
SILENT_SECONDS = 5.0
CONNECT_SECONDS = 1.0
PAUSE_SECONDS = 1.0


class Word:
    """One process's ear. Connects at the first `listen`, and again whenever that is lost, until it is closed.

    Attributes:
        listening: Whether everything that is said is heard.
    """

    def __init__(self, url: str, *, heard: Callable[[str], None], missed: Callable[[], None]) -> None:
        """Connect nothing yet.

        Args:
            url: The broker's. Where that is no Redis, nothing is ever heard.
            heard: Told the name of a breaker of which there is word.
            missed: Told that from now on everything is heard, and that before something may have been missed.
        """
        self.listening = False
        self._url = url if is_redis(url) else None
        self._heard, self._missed = heard, missed
        self._task: asyncio.Task[None] | None = None
        self._silent = False

    def listen(self) -> None:
        """Begin, unless that was done before. Called on the loop."""
        if self._task is None and self._url is not None:
            # In a context of its own: it is no attempt's, and nothing cuts it off.
            self._task = asyncio.get_running_loop().create_task(self._run(self._url), context=Context())

    async def close(self) -> None:
        """Hear nothing more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, url: str) -> None:
        while True:
            # The second protocol: there every answer is a list, or PONG.
            pool = async_redis_pool(
                url, protocol=2, socket_timeout=None, socket_connect_timeout=None, retry=RedisRetry(NoBackoff(), 0)
            )
            connection: Any = pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py's own gap
            try:
                await self._attend(connection)
            except Exception:  # noqa: BLE001, S110  whatever it is, whoever asks Redis says so; this only tries again
                pass
            finally:
                self.listening = False
                await connection.disconnect(nowait=True)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _attend(self, connection: Any) -> None:
        async with asyncio.timeout(CONNECT_SECONDS):
            await connection.connect()
            await connection.send_command("SUBSCRIBE", WORD)
            await connection.read_response()
        self.listening = True
        self._missed()
        self._silent = False
        asking = asyncio.get_running_loop().create_task(self._ask_for_life(connection))
        try:
            while True:
                answer = await connection.read_response()
                self._silent = False
                if isinstance(answer, list) and answer[0] == b"message":
                    self._heard(answer[2].decode())
        finally:
            asking.cancel()

    async def _ask_for_life(self, connection: Any) -> None:
        while True:
            await asyncio.sleep(SILENT_SECONDS)
            if self._silent:  # whoever reads learns of it by that
                await connection.disconnect(nowait=True)
                return
            self._silent = True
            with suppress(Exception):
                await connection.send_command("PING")
