"""What the fleet has been told, and whose turn it is to look: in Redis, each with a life; in the process without it.

    surefoot:alerts:turn          text    the process that looks; a dead one's turn is over in seconds
    surefoot:alerts:told:KEY      text    told, or (for two minutes) about to be; of what lasts, since when
    surefoot:alerts:sent          number  alerts in the hour that began with the first of them
    surefoot:alerts:more          hash    how many of which kind were over the limit

Losing all of it has things told once more, never not at all.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import redis

from producer.broker import bounded_redis, is_redis, redis_client

PREFIX = "surefoot:alerts:"
HOUR_SECONDS = 3_600
# What is about to be told, and by whom nobody hears again, is somebody else's to tell after so long.
CLAIM_SECONDS = 120
# After so long it is told once more, if it is still so.
TOLD_SECONDS = 86_400
QUIET_SECONDS = 5.0
MOST_KNOWN = 50_000
BATCH = 500

TURN = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
TAKE = "local value = redis.call('GET', KEYS[1]) redis.call('DEL', KEYS[1]) return value"
TAKE_MORE = "local all = redis.call('HGETALL', KEYS[1]) redis.call('DEL', KEYS[1]) return all"
COUNT = """
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return count
"""


class Memory:
    """One process's way to it, for one thread. Connects at the first use.

    Attributes:
        away_since: Since when, by `time.time()`, Redis does not answer; None where it does, or where there is none.
    """

    def __init__(self, redis_url: str, *, who: str, turn_seconds: float) -> None:
        """Connect nothing yet.

        Args:
            redis_url: The broker's. Where that is no Redis, each process remembers for itself.
            who: A name that no other process has.
            turn_seconds: How long a turn lasts after it was last taken.
        """
        self.away_since: float | None = None
        self._url = redis_url if is_redis(redis_url) else None
        self._who, self._turn_ms = who, round(turn_seconds * 1000)
        self._client: Any = None
        self._quiet_until = 0.0
        self._known: dict[str, tuple[float, str]] = {}  # until when, and the value
        self._sent, self._sent_until, self._more = 0, 0.0, Counter[str]()

    def turn(self) -> bool | None:
        """Take the turn, or keep it; say whether it is this process's. None where only the ledger can say.

        That is so where there is no Redis. Where it is away, whoever has the turn by it has to have lost it first.
        """
        mine: bool | None = self._ask(
            lambda client: client.eval(TURN, 1, f"{PREFIX}turn", self._who, self._turn_ms) > 0, None
        )
        if mine is None and self.away_since is not None and time.time() - self.away_since < 2 * self._turn_ms / 1000:
            return False
        return mine

    def give_turn(self) -> None:
        """Leave it to whoever is next."""
        gone = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"
        self._ask(lambda client: client.eval(gone, 1, f"{PREFIX}turn", self._who), None)

    def knows(self, key: str) -> bool:
        """Whether this process knows that it was told, or is about to be."""
        known = self._known.get(key)
        return known is not None and known[0] > time.monotonic()

    def claim(self, keys: Sequence[str]) -> list[str]:
        """Return those of the keys that nobody has told, for this process to tell within two minutes, or `keep`."""
        new = [key for key in keys if not self.knows(key)]
        mine: list[str] = []
        for begin in range(0, len(new), BATCH):
            batch = new[begin : begin + BATCH]
            answers = self._ask(partial(_claim, keys=batch), [True] * len(batch))
            mine += [key for key, answer in zip(batch, answers, strict=True) if answer]
        for key in new:
            # Another's may come to nothing: it is asked for again when its two minutes are over.
            self._know(key, CLAIM_SECONDS)
        return mine

    def begin(self, key: str, since: str) -> bool:
        """Say whether this began, and `since` when, is for this process to tell, as `claim` does."""
        asked = self._ask(lambda client: _claim(client, [key], since)[0], None)
        new = not self.knows(key) if asked is None else bool(asked)
        if new:
            self._know(key, CLAIM_SECONDS, since)
        return new

    def keep(self, keys: Iterable[str], seconds: int = TOLD_SECONDS) -> None:
        """Remember that this was told; or that it still is about to be."""
        kept = list(keys)
        for begin in range(0, len(kept), BATCH):
            batch = kept[begin : begin + BATCH]
            values = {key: self._known.get(key, (0.0, "1"))[1] for key in batch}
            self._ask(partial(_keep, values=values, seconds=seconds), None)
            for key, value in values.items():
                self._know(key, seconds, value)

    def peek(self, key: str) -> str | None:
        """Return since when what began is so; None where nobody has told that."""
        here = self._known[key][1] if self.knows(key) else None
        found = self._ask(lambda client: client.get(f"{PREFIX}told:{key}"), here)
        return None if found is None else str(found)

    def take(self, key: str) -> str | None:
        """Forget what began; return since when it was, None where nobody has told that."""
        known = self._known.pop(key, None)
        here = None if known is None or known[0] < time.monotonic() else known[1]
        found = self._ask(lambda client: client.eval(TAKE, 1, f"{PREFIX}told:{key}"), here)
        return None if found is None else str(found)

    def forget(self, keys: Iterable[str]) -> None:
        """Leave what was claimed to others."""
        names = [f"{PREFIX}told:{key}" for key in keys]
        if names:
            self._ask(lambda client: client.delete(*names), None)

    def count(self) -> int:
        """Count one alert; return how many there are in this hour, which began with the first."""
        return self._ask(lambda client: int(client.eval(COUNT, 1, f"{PREFIX}sent", HOUR_SECONDS)), None) or self._here()

    def add_more(self, kind: str) -> None:
        """Note one that is over the limit."""
        if self._ask(lambda client: client.hincrby(f"{PREFIX}more", kind, 1), None) is None:
            self._more[kind] += 1

    def more(self) -> Counter[str]:
        """Take what was over the limit of an hour that is past; nothing while it lasts."""
        if self._ask(lambda client: client.exists(f"{PREFIX}sent"), time.monotonic() < self._sent_until):
            return Counter()
        flat = self._ask(lambda client: client.eval(TAKE_MORE, 1, f"{PREFIX}more"), [])
        here, self._more = self._more, Counter()
        return here + Counter({kind: int(n) for kind, n in zip(flat[::2], flat[1::2], strict=True)})

    def _here(self) -> int:
        if time.monotonic() >= self._sent_until:
            self._sent, self._sent_until = 0, time.monotonic() + HOUR_SECONDS
        self._sent += 1
        return self._sent

    def _know(self, key: str, seconds: float, value: str = "1") -> None:
        while len(self._known) >= MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known.pop(key, None)  # the oldest first
        self._known[key] = (time.monotonic() + seconds, value)

    def _ask(self, ask: Callable[[Any], Any], otherwise: Any) -> Any:
        if self._url is None or time.monotonic() < self._quiet_until:
            return otherwise
        try:
            if self._client is None:
                self._client = redis_client(self._url, decode_responses=True, protocol=2, **bounded_redis())
            answer = ask(self._client)
        except redis.RedisError:
            self.away_since = self.away_since or time.time()
            self._quiet_until = time.monotonic() + min(QUIET_SECONDS, self._turn_ms / 1000)
            return otherwise
        self.away_since = None
        return answer


def _claim(client: Any, keys: Sequence[str], value: str = "1") -> list[bool]:
    with client.pipeline(transaction=False) as line:
        for key in keys:
            line.set(f"{PREFIX}told:{key}", value, nx=True, ex=CLAIM_SECONDS)
        return [bool(answer) for answer in line.execute()]


def _keep(client: Any, *, values: Mapping[str, str], seconds: int) -> None:
    with client.pipeline(transaction=False) as line:
        for key, value in values.items():  # set anew: Redis may have lost it
            line.set(f"{PREFIX}told:{key}", value, ex=seconds)
        line.execute()
