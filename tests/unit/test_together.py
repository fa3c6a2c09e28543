"""Calls of several threads are done as one, and nobody waits for a leader that is gone."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest

from producer import together
from producer.together import Together
from tests.houses import until

HOUR_SECONDS = 3600.0
PATIENCE_SECONDS = 10.0
INTERRUPTS = 200


class Doubling:
    """Doubles numbers, and knows what was asked for together. Waits where `gate` is closed."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, numbers: Sequence[int]) -> list[int | None]:
        self.calls.append(list(numbers))
        assert self.gate.wait(PATIENCE_SECONDS)
        return [number * 2 for number in numbers]


@pytest.fixture
def work() -> Doubling:
    return Doubling()


@pytest.fixture
def doubled(work: Doubling) -> Together[int, int]:
    return Together(work)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(200) as made:
        yield made


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who goes together hangs on nobody's speed."""
    monkeypatch.setattr(together, "PATIENCE_SECONDS", HOUR_SECONDS)
    monkeypatch.setattr(together, "RECENT_SECONDS", 0.0)


def gathered(doubled: Together[int, int]) -> int:
    """How many wait to go together."""
    call = doubled._gathering  # noqa: SLF001  nothing shows from outside
    return 0 if call is None else len(call.places)


def crowd(threads: ThreadPoolExecutor, doubled: Together[int, int], numbers: Sequence[int]) -> list[Future[int | None]]:
    """Ask for each number in its own thread, one after another; return when all wait together."""
    asked = []
    for number in numbers:
        before = gathered(doubled)
        asked.append(threads.submit(doubled.ask, number))
        until(lambda: gathered(doubled) > before)  # noqa: B023  called at once
    return asked


def out(threads: ThreadPoolExecutor, doubled: Together[int, int], work: Doubling, number: int) -> Future[int | None]:
    """Have a call out that does not end before the gate opens."""
    work.gate.clear()
    asked = threads.submit(doubled.ask, number)
    until(lambda: work.calls[-1:] == [[number]])
    return asked


def interrupt(thread: int) -> None:
    """Raise KeyboardInterrupt in a thread, at whatever instruction it is."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))


def test_what_is_asked_while_a_call_is_out_goes_together_in_the_next(
    threads: ThreadPoolExecutor, doubled: Together[int, int], work: Doubling
) -> None:
    first = out(threads, doubled, work, 1)
    others = crowd(threads, doubled, range(2, 12))
    work.gate.set()
    assert [asked.result(PATIENCE_SECONDS) for asked in (first, *others)] == [number * 2 for number in range(1, 12)]
    assert work.calls == [[1], list(range(2, 12))]


def test_a_lone_caller_waits_for_nobody(
    doubled: Together[int, int], work: Doubling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "GATHER_SECONDS", HOUR_SECONDS)
    monkeypatch.setattr(together, "RECENT_SECONDS", HOUR_SECONDS)
    assert [doubled.ask(number) for number in range(100)] == [number * 2 for number in range(100)]
    assert work.calls == [[number] for number in range(100)]


def test_those_who_were_together_a_moment_ago_are_waited_for(
    threads: ThreadPoolExecutor, doubled: Together[int, int], work: Doubling, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = out(threads, doubled, work, 1)
    others = crowd(threads, doubled, [2, 3, 4])
    work.gate.set()
    assert [asked.result(PATIENCE_SECONDS) for asked in (first, *others)] == [2, 4, 6, 8]
    monkeypatch.setattr(together, "GATHER_SECONDS", HOUR_SECONDS)
    monkeypatch.setattr(together, "RECENT_SECONDS", HOUR_SECONDS)
    again = [threads.submit(doubled.ask, number) for number in (5, 6, 7)]
    assert [asked.result(PATIENCE_SECONDS) for asked in again] == [10, 12, 14]
    assert [len(call) for call in work.calls] == [1, 3, 3]


def test_those_who_do_not_come_again_are_waited_for_once(
    threads: ThreadPoolExecutor, doubled: Together[int, int], work: Doubling, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = out(threads, doubled, work, 1)
    others = crowd(threads, doubled, [2, 3])
    work.gate.set()
    assert [asked.result(PATIENCE_SECONDS) for asked in (first, *others)] == [2, 4, 6]
    monkeypatch.setattr(together, "RECENT_SECONDS", HOUR_SECONDS)
    assert doubled.ask(4) == 8
    monkeypatch.setattr(together, "GATHER_SECONDS", HOUR_SECONDS)
    assert doubled.ask(5) == 10


def test_a_crowd_of_long_ago_is_not_waited_for(
    threads: ThreadPoolExecutor, doubled: Together[int, int], work: Doubling, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = out(threads, doubled, work, 1)
    others = crowd(threads, doubled, [2, 3])
    work.gate.set()
    assert [asked.result(PATIENCE_SECONDS) for asked in (first, *others)] == [2, 4, 6]
    monkeypatch.setattr(together, "GATHER_SECONDS", HOUR_SECONDS)
    assert doubled.ask(4) == 8


def test_a_call_that_takes_long_keeps_the_next_no_longer_than_its_patience(
    threads: ThreadPoolExecutor, doubled: Together[int, int], work: Doubling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "PATIENCE_SECONDS", 0.01)
    first = out(threads, doubled, work, 1)
    second = threads.submit(doubled.ask, 2)
    until(lambda: work.calls == [[1], [2]])
    assert not first.done()
    work.gate.set()
    assert [first.result(PATIENCE_SECONDS), second.result(PATIENCE_SECONDS)] == [2, 4]


def test_no_more_go_together_than_the_limit(
    threads: ThreadPoolExecutor, doubled: Together[int, int], work: Doubling
) -> None:
    first = out(threads, doubled, work, -1)
    crowd(threads, doubled, range(together.MOST))
    others = [threads.submit(doubled.ask, number) for number in range(together.MOST, 150)]
    work.gate.set()
    assert [asked.result(PATIENCE_SECONDS) for asked in (first, *others)] == [-2, *range(together.MOST * 2, 300, 2)]
    assert max(map(len, work.calls)) == together.MOST
    assert sorted(itertools.chain(*work.calls)) == list(range(-1, 150))


def test_an_error_is_everybodys_who_went_together_and_nobody_elses(threads: ThreadPoolExecutor, work: Doubling) -> None:
    def refusing(numbers: Sequence[int]) -> list[int | None]:
        answers = work(numbers)
        if len(numbers) > 1:
            raise ValueError(numbers)
        return answers

    doubled = Together(refusing)
    first = out(threads, doubled, work, 1)
    others = crowd(threads, doubled, [2, 3, 4])
    work.gate.set()
    assert first.result(PATIENCE_SECONDS) == 2
    for asked in others:
        with pytest.raises(ValueError, match="2, 3, 4"):
            asked.result(PATIENCE_SECONDS)
    assert doubled.ask(5) == 10


def test_a_leader_interrupted_while_it_gathers_leaves_the_others_without_an_answer_and_the_next_unharmed(
    threads: ThreadPoolExecutor, doubled: Together[int, int], work: Doubling
) -> None:
    first = out(threads, doubled, work, 1)
    leader = crowd(threads, doubled, [2])[0]
    thread = doubled._gathering.leader  # type: ignore[union-attr]  # noqa: SLF001  nothing shows from outside
    others = crowd(threads, doubled, [3, 4])
    interrupt(thread)  # a thread learns of it when its lock lets it go
    work.gate.set()
    with pytest.raises(KeyboardInterrupt):
        leader.result(PATIENCE_SECONDS)
    assert first.result(PATIENCE_SECONDS) == 2
    assert [asked.result(PATIENCE_SECONDS) for asked in others] == [None, None]
    assert [threads.submit(doubled.ask, number).result(PATIENCE_SECONDS) for number in (5, 6)] == [10, 12]
    assert work.calls == [[1], [5], [6]]


def test_a_leader_interrupted_while_its_call_is_out_leaves_the_others_without_an_answer(
    threads: ThreadPoolExecutor,
) -> None:
    inside, gate = threading.Event(), threading.Event()

    def work(numbers: Sequence[int]) -> list[int | None]:
        if len(numbers) > 1:
            inside.set()
            while not gate.is_set():
                pass
        return [number * 2 for number in numbers]

    blocking = Doubling()
    doubled: Together[int, int] = Together(lambda numbers: (blocking if numbers == [1] else work)(numbers))
    first = out(threads, doubled, blocking, 1)
    leader = crowd(threads, doubled, [2])[0]
    thread = doubled._gathering.leader  # type: ignore[union-attr]  # noqa: SLF001  nothing shows from outside
    others = crowd(threads, doubled, [3, 4])
    blocking.gate.set()
    assert inside.wait(PATIENCE_SECONDS)
    interrupt(thread)
    with pytest.raises(KeyboardInterrupt):
        leader.result(PATIENCE_SECONDS)
    gate.set()
    assert first.result(PATIENCE_SECONDS) == 2
    assert [asked.result(PATIENCE_SECONDS) for asked in others] == [None, None]
    assert doubled.ask(5) == 10


class Asking:
    """Threads that ask on and on, whatever interrupts them."""

    def __init__(self, doubled: Together[int, int]) -> None:
        self.doubled = doubled
        self.asked, self.interrupted, self.wrong = [0] * 4, 0, list[tuple[int, int | None]]()
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._ask_on, args=(n,), daemon=True) for n in range(4)]
        for thread in self.threads:
            thread.start()

    def go_on(self) -> None:
        """Wait until each has asked twice more: what it was interrupted with by now, it knows of then."""
        before = list(self.asked)
        until(lambda: all(now >= then + 2 for now, then in zip(self.asked, before, strict=True)))

    def _ask_on(self, mine: int) -> None:
        # Each loop in a function of its own: Python 3.13 raises an interrupt in a loop's jump, which no block covers.
        while not self.over.is_set():
            with suppress(KeyboardInterrupt):
                self._ask_until_interrupted(mine)

    def _ask_until_interrupted(self, mine: int) -> None:
        while not self.over.is_set():
            self.asked[mine] += 1
            self._ask(self.asked[mine] * 4 + mine)

    def _ask(self, number: int) -> None:
        try:
            answer = self.doubled.ask(number)
        except KeyboardInterrupt:
            self.interrupted += 1
        else:
            if answer not in (None, number * 2):
                self.wrong.append((number, answer))


def test_threads_that_are_interrupted_anywhere_strand_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "PATIENCE_SECONDS", 0.001)
    monkeypatch.setattr(together, "RECENT_SECONDS", 0.002)
    doubled: Together[int, int] = Together(lambda numbers: [number * 2 for number in numbers])
    asking = Asking(doubled)
    while asking.interrupted < INTERRUPTS:
        for thread in asking.threads:
            interrupt(thread.ident or 0)
            thread.join(0.0005)
        asking.go_on()
    asking.over.set()
    for thread in asking.threads:
        thread.join(PATIENCE_SECONDS)
    assert asking.wrong == []
    assert doubled.ask(7) == 14


def test_a_signals_handler_may_ask_while_its_own_thread_gathers(
    threads: ThreadPoolExecutor, doubled: Together[int, int], work: Doubling
) -> None:
    answers: list[int | None] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: answers.append(doubled.ask(3)))
    try:
        first = out(threads, doubled, work, 1)

        def disturb() -> None:
            until(lambda: gathered(doubled) == 1)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            until(lambda: answers)
            work.gate.set()

        disturbed = threads.submit(disturb)
        assert doubled.ask(2) == 4
        disturbed.result(PATIENCE_SECONDS)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (answers, first.result(PATIENCE_SECONDS)) == ([None], 2)


def test_a_forked_child_asks_anew_while_its_parents_call_is_out(
    threads: ThreadPoolExecutor, doubled: Together[int, int], work: Doubling
) -> None:
    first = out(threads, doubled, work, 1)
    others = crowd(threads, doubled, [2, 3])
    child = os.fork()
    if not child:
        signal.alarm(int(PATIENCE_SECONDS))
        work.gate.set()
        os._exit(0 if doubled.ask(4) == 8 else 1)
    assert os.waitpid(child, 0)[1] == 0
    work.gate.set()
    assert [asked.result(PATIENCE_SECONDS) for asked in (first, *others)] == [2, 4, 6]
