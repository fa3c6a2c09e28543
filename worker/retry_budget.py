"""The fleet's budget for retries, per dependency: in an outage they must not become most of what a dependency gets.

Retries are paid for by first tries: in a window of some seconds there may be a share of them, and so many a second in
any case. One without budget is held, unspent, and comes back when there may be some. What a retry that succeeded cost
is given back: whoever is well again is not kept waiting.

First tries are only counted, in this process, and told to Redis by the next retry that asks: while nothing fails,
nobody asks. With Redis away each process keeps to its own count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

from tasks import Dependency
from worker.fleet import Away, Fleet, Script

WINDOW_SECONDS = 10
# Who was refused comes back after as long as those before him take to be let through, within these bounds.
SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0
# Dependencies that nobody tried for a window are forgotten where there are more of them.
KNOWN_LIMIT = 1_000

# One hash a dependency: the first tries, retries and refusals of each second, of the last ten. Everything that is
# asked is answered by one look at it, so no other process comes between.
PAY = Script(f"""
local share, least = tonumber(ARGV[1]), tonumber(ARGV[2])
local second = tonumber(redis.call('TIME')[1])
for n = 3, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], 'first ' .. second - ARGV[n], ARGV[n + 1]) end
local sums, fields = {{first = 0, retry = 0, refused = 0}}, redis.call('HGETALL', KEYS[1])
for n = 1, #fields, 2 do
  local what, at = string.match(fields[n], '(%a+) (%d+)')
  if tonumber(at) <= second - {WINDOW_SECONDS} then
    redis.call('HDEL', KEYS[1], fields[n])
  else
    sums[what] = sums[what] + fields[n + 1]
  end
end
local allowed = math.max(1, share * sums.first + least * {WINDOW_SECONDS})
local paid = sums.retry + 1 <= allowed
redis.call('HINCRBY', KEYS[1], (paid and 'retry ' or 'refused ') .. second, 1)
redis.call('EXPIRE', KEYS[1], {2 * WINDOW_SECONDS})
if paid then return {{1, second}} end
return {{0, math.ceil(1000 * {WINDOW_SECONDS} * (sums.refused + 1) / allowed)}}
""")
GIVE_BACK = Script("""
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then redis.call('HINCRBY', KEYS[1], ARGV[1], -1) end
return 0
""")


@dataclass(slots=True)
class Window:
    """What this process itself counted of one dependency, by the second on the monotonic clock.

    Attributes:
        first: First tries.
        untold: Those of them that Redis has not been told of.
        retries: Let through here while Redis was away.
        refused: Retries that were refused here, then.
    """

    first: dict[int, int] = field(default_factory=dict)
    untold: dict[int, int] = field(default_factory=dict)
    retries: dict[int, int] = field(default_factory=dict)
    refused: dict[int, int] = field(default_factory=dict)

    def try_first(self, second: int) -> None:
        """Count a first try."""
        for counts in (self.first, self.untold):
            if second not in counts:  # once a second there is something to forget
                _forget(counts, second)
            counts[second] = counts.get(second, 0) + 1

    def tell(self, second: int) -> list[int]:
        """Return how many seconds ago there were how many first tries that nobody was told of; they are told now."""
        _forget(self.untold, second)
        told = [number for at, count in self.untold.items() for number in (second - at, count)]
        self.untold.clear()
        return told

    def pay(self, second: int, share: float, least: float) -> float:
        """Let a retry through, and return 0; or the seconds after which there may be budget for it. As `PAY` does."""
        for counts in (self.first, self.retries, self.refused):
            _forget(counts, second)
        allowed = max(1.0, share * sum(self.first.values()) + least * WINDOW_SECONDS)
        paid = sum(self.retries.values()) + 1 <= allowed
        counts = self.retries if paid else self.refused
        before = sum(self.refused.values())
        counts[second] = counts.get(second, 0) + 1
        return 0.0 if paid else WINDOW_SECONDS * (before + 1) / allowed

    def give_back(self, second: int) -> None:
        """Take back that a retry of that second was let through."""
        if self.retries.get(second):
            self.retries[second] -= 1


@dataclass(frozen=True, slots=True)
class Paid:
    """What a retry was let through with.

    Attributes:
        key: Of Redis's, or the dependency's name where this process let it through by itself.
        second: Of Redis's clock, or of the monotonic one.
        here: Whether Redis was away.
    """

    key: str
    second: int
    here: bool


class RetryBudget:
    """The fleet's budgets as one process keeps to them, on its loop. Connects at the first retry."""

    def __init__(self, fleet: Fleet, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask nothing yet."""
        self._fleet, self._clock = fleet, clock
        self._windows: dict[str, Window] = {}
        self._giving: set[asyncio.Task[None]] = set()

    def try_first(self, name: str, dependency: Dependency) -> None:
        """Count a first try; asks nobody."""
        if dependency.retry_share is not None:
            self._window(name).try_first(int(self._clock()))

    async def pay(self, name: str, dependency: Dependency) -> Paid | float | None:
        """Pay for a retry.

        Args:
            name: The dependency's, or that of one of its breakers.
            dependency: Its settings.

        Returns:
            What it was let through with, for `give_back`; None where there is no budget to keep to; or, where it is
            used up, the seconds after which there may be some.
        """
        share, least = dependency.retry_share, dependency.retries_per_second
        if share is None:
            return None
        window, second = self._window(name), int(self._clock())
        key = f"surefoot:retries:{name}"
        try:
            answer = await self._fleet.run(PAY, [key], [share, least, *window.tell(second)])
        except Away:
            wait = window.pay(second, share, least)
            return _bounded(wait) if wait else Paid(name, second, here=True)
        return _answered(key, answer)

    def give_back(self, paid: Paid) -> None:
        """Give back what a retry cost that succeeded; returns at once, and is lost where Redis is away."""
        if paid.here:
            self._window(paid.key).give_back(paid.second)
            return
        giving = asyncio.get_running_loop().create_task(self._give_back(paid), context=Context())
        self._giving.add(giving)
        giving.add_done_callback(self._giving.discard)

    async def _give_back(self, paid: Paid) -> None:
        with suppress(Away):
            await self._fleet.run(GIVE_BACK, [paid.key], [f"retry {paid.second}"])

    def _window(self, name: str) -> Window:
        window = self._windows.get(name)
        if window is None:
            if len(self._windows) >= KNOWN_LIMIT:
                oldest = int(self._clock()) - WINDOW_SECONDS
                self._windows = {n: w for n, w in self._windows.items() if max(w.first, default=-1) > oldest}
            window = self._windows[name] = Window()
        return window


def _answered(key: str, answer: Sequence[Any]) -> Paid | float:
    is_paid, number = answer
    return Paid(key, number, here=False) if is_paid else _bounded(number / 1000)


def _bounded(seconds: float) -> float:
    return min(max(seconds, SHORTEST_WAIT_SECONDS), LONGEST_WAIT_SECONDS)


def _forget(counts: dict[int, int], second: int) -> None:
    for at in [at for at in counts if at <= second - WINDOW_SECONDS]:
        del counts[at]
