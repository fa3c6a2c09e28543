"""Redis as the place where worker processes agree with one another: quick when it is there, and never waited for.

Whoever asks in the same moment of the loop shares one round trip over the process's one connection: a ring of a hundred
jobs asks once. Where Redis does not answer, whoever asked is told so within a quarter of a second, and for some seconds
after that at once; what then holds is the asker's to say.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from redis.asyncio.retry import Retry as RedisRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LineBroken
from redis.exceptions import NoScriptError, ResponseError

from producer.broker import async_redis_pool, is_redis

# No attempt waits longer for a Redis that does not answer.
TIMEOUT_SECONDS = 0.25
# The wait is counted in so many beats, each as long as the loop takes for it: a loop that has much to do, or that an
# action keeps to itself, needs longer to read an answer that is there. That is not Redis being away.
BEATS = 25
# After a failure nobody asks for so long.
AWAY_SECONDS = 5.0
# Questions in one round trip. More would keep Redis from everybody else.
BATCH = 500


class Away(Exception):
    """Redis did not answer, or refused, or the broker is none. Whether it has heard, nobody knows."""


class Script:
    """A Lua script and the name under which Redis keeps it."""

    def __init__(self, text: str) -> None:
        """Send nothing yet."""
        self.text, self.sha = text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class _Asked:
    words: tuple[Any, ...]
    script: Script | None
    answer: asyncio.Future[Any]


class Fleet:
    """One process's line to Redis, on its loop. Connects at the first use."""

    def __init__(self, url: str, *, on_away: Callable[[str], None]) -> None:
        """Connect nothing yet.

        Args:
            url: The broker's. Where that is no Redis, nothing can ever be asked.
            on_away: Told the error when Redis stops answering, once until it answers again.
        """
        # Kept with its connection, which asks it where Redis is.
        self._pool = _pool(url)
        self._connection: Any = None if self._pool is None else self._pool.make_connection()
        self._on_away = on_away
        self._away_until, self._told = 0.0, False
        self._line: list[_Asked] = []
        self._sending: asyncio.Task[None] | None = None

    async def command(self, *words: Any) -> Any:
        """Send one command; return Redis's answer.

        Raises:
            Away: If there is none.
        """
        return await self._ask(words, None)

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script; return Redis's answer.

        Raises:
            Away: If there is none. The script may have run all the same.
        """
        return await self._ask((len(keys), *keys, *arguments), script)

    async def close(self) -> None:
        """Hang up; what still waits is told that Redis is away."""
        if self._sending is not None:
            self._sending.cancel()
        _refuse(self._line)
        if self._connection is not None:
            await self._connection.disconnect()

    def _ask(self, words: tuple[Any, ...], script: Script | None) -> Awaitable[Any]:
        if self._connection is None or time.monotonic() < self._away_until:
            raise Away
        loop = asyncio.get_running_loop()
        asked = _Asked(words, script, loop.create_future())
        self._line.append(asked)
        if self._sending is None or self._sending.done():
            # In a context of its own: what is logged there is no attempt's, and nothing cuts it off.
            self._sending = loop.create_task(self._send(self._connection), context=Context())
        return asked.answer

    async def _send(self, connection: Any) -> None:
        while self._line:
            batch, self._line = self._line[:BATCH], self._line[BATCH:]
            try:
                answers = await _exchange(connection, batch)
                for asked, answer in zip(batch, answers, strict=True):
                    if not asked.answer.done():  # as it is where the asker was cut off
                        asked.answer.set_result(answer)
                self._told = False
            except Exception as error:  # noqa: BLE001  whatever it is, whoever asked must not wait for ever
                self._missed(error)
                await connection.disconnect(nowait=True)
            finally:
                _refuse(batch)

    def _missed(self, error: Exception) -> None:
        self._away_until = time.monotonic() + AWAY_SECONDS
        if not self._told:
            self._told = True
            self._on_away(str(error) or f"no answer within {TIMEOUT_SECONDS:g} s")
        line, self._line = self._line, []
        _refuse(line)


def _refuse(line: Sequence[_Asked]) -> None:
    for asked in line:
        if not asked.answer.done():
            asked.answer.set_exception(Away())


async def _exchange(connection: Any, batch: Sequence[_Asked]) -> list[Any]:
    """Ask everything in one round trip; in two where Redis does not know a script yet.

    Raises:
        TimeoutError: If that takes too long.
        RedisError: If Redis cannot be reached, or refuses any of it: one that does not do what it should is away, too.
    """
    async with asyncio.timeout(None) as limit:
        patience = _Patience(limit)
        try:
            answers = await _round_trip(connection, [_by_name(asked) for asked in batch])
            unknown = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:
                in_full = await _round_trip(connection, [_in_full(batch[n]) for n in unknown])
                answers = [in_full.pop(0) if isinstance(a, NoScriptError) else a for a in answers]
        finally:
            patience.end()
    for answer in answers:
        if isinstance(answer, ResponseError):
            raise answer
    return answers


class _Patience:
    """Lets a timeout pass after `BEATS` beats of the loop, unless it ends before."""

    def __init__(self, limit: asyncio.Timeout) -> None:
        self._limit, self._left = limit, BEATS
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_later(TIMEOUT_SECONDS / BEATS, self._beat)

    def end(self) -> None:
        self._next.cancel()

    def _beat(self) -> None:
        self._left -= 1
        if self._left:
            self._next = self._loop.call_later(TIMEOUT_SECONDS / BEATS, self._beat)
        else:
            self._limit.reschedule(self._loop.time())


async def _round_trip(connection: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    stood = connection.is_connected
    try:
        return await _talk(connection, commands)
    except (LineBroken, OSError):
        if not stood:
            raise
    # Redis was restarted while nobody asked.
    await connection.disconnect(nowait=True)
    return await _talk(connection, commands)


async def _talk(connection: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    if not connection.is_connected:
        await connection.connect()
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    answers: list[Any] = []
    for _ in commands:
        try:
            answers.append(await connection.read_response())
        except ResponseError as error:
            answers.append(error)
    return answers


def _by_name(asked: _Asked) -> tuple[Any, ...]:
    return asked.words if asked.script is None else ("EVALSHA", asked.script.sha, *asked.words)


def _in_full(asked: _Asked) -> tuple[Any, ...]:
    return asked.words if asked.script is None else ("EVAL", asked.script.text, *asked.words)


def _pool(url: str) -> Any:
    if not is_redis(url):
        return None
    # Without redis-py's retries, which would hold an attempt for eight seconds; and without its timeouts, each of which
    # is a task of its own for every command. The time is kept above.
    return async_redis_pool(url, socket_timeout=None, socket_connect_timeout=None, retry=RedisRetry(NoBackoff(), 0))
