"""Calls that several threads make at the same time, done as one: the first leads, and does it for those who joined.

Whoever finds nobody gathering leads. It waits until the call before its own is over, takes along whoever has joined
meanwhile, and hands out the answers; so no thread has to be kept alive, and a lone caller waits for nobody.

Nobody waits for one who is gone: a leader holds its call's locks in ``with`` blocks, which let go of them whatever ends
the block, an interrupt at any instruction among it. Whoever then finds no answer does it alone. All else is single
reads, writes and appends, under no lock: none can be held by a thread that a fork left behind or a signal interrupted.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Lock, get_ident
from typing import Generic, TypeVar

# How long a call may keep the next from beginning. Beyond it, which few take, they are out at the same time.
PATIENCE_SECONDS = 0.05
# Those who were together a moment ago tend to come again at once. They are waited for so long; in vain but once, since
# the next leader expects no more than came.
GATHER_SECONDS = 0.0005
# How long ago that may be.
RECENT_SECONDS = 0.002
# More than this do not join one call: the next to come leads another.
MOST = 64

A = TypeVar("A")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Place(Generic[A, R]):
    """One caller's part: what it asks, and what came of it; neither answer nor error where nothing is known."""

    asked: A
    answer: R | None = None
    error: Exception | None = None

    def outcome(self) -> R | None:
        if self.error is not None:
            raise self.error
        return self.answer


@dataclass(slots=True, eq=False)
class _Call(Generic[A, R]):
    """What goes together.

    Attributes:
        places: The leader's first. Some may come too late to be taken along.
        leader: Its thread.
        done: Held by the leader until everybody has an answer; those who joined wait for it.
        over: Held as long; the next leader waits for it, but not for ever.
        expected: How many places the leader waits for; 0 where it does not.
        complete: Told by the one who makes up their number.
    """

    places: list[_Place[A, R]]
    leader: int = field(default_factory=get_ident)
    done: Lock = field(default_factory=Lock)
    over: Lock = field(default_factory=Lock)
    expected: int = 0
    complete: SimpleQueue[None] = field(default_factory=SimpleQueue)

    @property
    def may_be_joined(self) -> bool:
        """Whether there is room, and a leader: one that was interrupted leaves its call behind as if it gathered."""
        return len(self.places) < MOST and self.done.locked()

    def join(self, place: _Place[A, R]) -> None:
        """Take a place, and wait until the call is over, however it ends."""
        self.places.append(place)
        if len(self.places) == self.expected:
            self.complete.put(None)
        with self.done:
            pass

    def expect(self, places: int) -> None:
        """Wait for so many, but not long."""
        self.expected = places
        if len(self.places) < places:
            with suppress(Empty):
                self.complete.get(timeout=GATHER_SECONDS)


class Together(Generic[A, R]):
    """Does together what threads ask at the same time. Usable after a fork, which inherits no call that is out."""

    _gathering: _Call[A, R] | None
    _last: Lock  # the latest call's `over`
    _came: tuple[int, float]  # how many, and when they were answered on the monotonic clock

    def __init__(self, work: Callable[[Sequence[A]], Sequence[R | None]]) -> None:
        """Do nothing yet.

        Args:
            work: Takes what was asked and answers each, in order; None where that one should be done alone. What it
                raises, each of them gets.
        """
        self._work = work
        self._renew()
        _all.add(self)

    def ask(self, asked: A) -> R | None:
        """Have it done with whatever else is asked now, and return its answer.

        Returns:
            None if nothing is known of it: it was not done, or its answer was lost. The caller does it alone.

        Raises:
            Exception: What the work raised.
        """
        place: _Place[A, R] = _Place(asked)
        call = self._gathering
        if call is None or not call.may_be_joined:
            self._lead(_Call([place]))
        elif call.leader != get_ident():  # else a signal's handler asks while its own thread gathers
            call.join(place)
        return place.outcome()

    def _lead(self, call: _Call[A, R]) -> None:
        with call.done, call.over:
            before, self._last, self._gathering = self._last, call.over, call
            if before.acquire(timeout=PATIENCE_SECONDS):
                before.release()
            came, at = self._came
            if len(call.places) < came and time.monotonic() - at < RECENT_SECONDS:
                call.expect(came)
            if self._gathering is call:
                self._gathering = None
            places = call.places[:MOST]
            self._answer(places)
            self._came = len(places), time.monotonic()

    def _answer(self, places: Sequence[_Place[A, R]]) -> None:
        try:
            answers = self._work([place.asked for place in places])
        except Exception as error:  # noqa: BLE001  each raises it in its own thread
            for place in places:
                place.error = error
        else:
            for place, answer in zip(places, answers, strict=True):
                place.answer = answer

    def _renew(self) -> None:
        self._gathering, self._last, self._came = None, Lock(), (0, 0.0)


_all: weakref.WeakSet[Together] = weakref.WeakSet()  # type: ignore[type-arg]  # of any


def _renew() -> None:
    for each in list(_all):
        each._renew()  # noqa: SLF001  its own module's


os.register_at_fork(after_in_child=_renew)
