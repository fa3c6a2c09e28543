"""The processes of a storm that come and go: workers, producers and the API, each in a place that is filled when empty.

As under a supervisor: whoever ends, by a fault or by itself, is followed by another one of the same place.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.chaos.processes import Member
from tests.chaos.storm.clock import CLOCK
from tests.houses import ROOT
from worker.start import POOL_ENVIRONMENT, worker_command

LOOK_SECONDS = 0.1
# What ends at once is not started again at once.
PAUSE_SECONDS = 1.0
# Of a long storm, after these shares of it: a process is watched for three minutes, once it is two minutes old.
LONG_SECONDS, PEACE_AFTER, PEACE_SECONDS = 1_500.0, (0.25, 0.55), 390.0
# A producer may be waiting for a ledger that is away, three times over.
STOP_SECONDS = 30.0
NOW, NEXT = "tests.chaos.storm.build_now", "tests.chaos.storm.build_next"


Role = Literal["worker", "producer", "api"]


@dataclass(slots=True, eq=False)
class Place:
    """A place in the crew.

    Attributes:
        name: Its processes are called ``NAME.1``, ``NAME.2`` and so on.
        role: What is done there.
        build: The module of a worker's actions.
        prefork: Whether the worker performs in child processes.
        over_http: Whether the producer asks the API.
        member: Who has it now.
        busy: While a fault is at work on it: nobody else's victim, and nobody follows yet.
        peace: From when to when, by the monotonic clock, no fault is at work on it.
    """

    name: str
    role: Role
    build: str = ""
    prefork: bool = False
    over_http: bool = False
    number: int = 0
    member: Member | None = None
    started_at: float = 0.0
    busy: bool = False
    peace: tuple[float, float] = (0.0, 0.0)

    @property
    def may_be_hit(self) -> bool:
        """Whether a fault may choose it now."""
        in_peace = self.peace[0] <= time.monotonic() < self.peace[1]
        return self.lives and not self.busy and not in_peace

    @property
    def lives(self) -> bool:
        return self.member is not None and self.member.lives


@dataclass(slots=True)
class Crew:
    """All of them, and the thread that fills their places.

    Attributes:
        folder: For their logs.
        environment: Of all of them.
        per_second: How many requests each producer makes.
        api_port: Where the API listens.
        api_key: By which producers may ask it.
        past: Everybody who ever had a place.
        ends: Who ended by itself, with what status, and when.
    """

    folder: Path
    environment: Mapping[str, str]
    seed: int
    per_second: float
    api_port: int
    api_key: str
    places: list[Place]
    past: list[Member] = field(default_factory=list)
    ends: list[dict[str, Any]] = field(default_factory=list)
    filling: bool = True
    loading: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Fill all places but the producers', and go on doing so."""
        (self.folder / "logs").mkdir(exist_ok=True)
        self._fill()
        self._thread = threading.Thread(target=self._run, name="crew", daemon=True)
        self._thread.start()

    def begin_load(self) -> None:
        """Fill the producers' places, too."""
        with self._lock:
            self.loading = True
            self._fill()

    def end_load(self) -> None:
        """Tell producers to end, and wait until they have; one that does not is killed."""
        with self._lock:
            self.loading = False
        for place in self.producers:
            if place.member is not None and place.lives:
                tell(place.member, "stop")
        for place in self.producers:
            if place.member is not None:
                with suppress(subprocess.TimeoutExpired):
                    place.member.process.wait(STOP_SECONDS)
                place.member.end()

    def hold(self) -> None:
        """Fill no place any more."""
        with self._lock:
            self.filling = False
        if self._thread is not None:
            self._thread.join()

    @contextmanager
    def victim(self, suits: Callable[[Place], bool], choice: float) -> Iterator[Place | None]:
        """Give a place whose process lives, to nobody else meanwhile; None where there is none that suits."""
        with self._lock:
            found = [place for place in self.places if place.may_be_hit and suits(place)]
            place = found[int(choice * len(found))] if found else None
            if place is not None:
                place.busy = True
        try:
            yield place
        finally:
            if place is not None:
                place.busy = False

    def have_peace(self, seconds: float) -> None:
        """Spare the first two workers for a while each, in a storm that lasts for so many seconds from now.

        Where all are killed every minute nobody lives for as long as it takes to see that it grows. What befalls the
        servers befalls them, too.
        """
        if seconds < LONG_SECONDS:
            return
        for number, place in enumerate(self.workers[: len(PEACE_AFTER)]):
            begin = time.monotonic() + seconds * PEACE_AFTER[number]
            place.peace = (begin, begin + PEACE_SECONDS)

    def restart(self, place: Place) -> Member:
        """Fill an empty place at once."""
        with self._lock:
            return self._start(place)

    @property
    def workers(self) -> Sequence[Place]:
        """The places of workers."""
        return [place for place in self.places if place.role == "worker"]

    @property
    def producers(self) -> Sequence[Place]:
        """The places of producers."""
        return [place for place in self.places if place.role == "producer"]

    @property
    def serving(self) -> Sequence[Place]:
        """The places of whoever has to be told to end once nobody asks any more."""
        return [place for place in self.places if place.role != "producer"]

    def _run(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            with self._lock:
                if not self.filling:
                    return
                self._fill()

    def _fill(self) -> None:
        for place in self.places:
            if place.role == "producer" and not self.loading:
                continue
            if place.lives or place.busy or time.monotonic() - place.started_at < PAUSE_SECONDS:
                continue
            self._start(place)

    def _start(self, place: Place) -> Member:
        if place.member is not None and place.member.process.returncode not in (None, -9):
            self.ends.append(
                {"name": place.member.name, "status": place.member.process.returncode, "noticed": time.time()}
            )
        place.number, place.started_at = place.number + 1, time.monotonic()
        begin = {"worker": self._worker, "producer": self._producer, "api": self._api}[place.role]
        place.member = begin(place)
        self.past.append(place.member)
        return place.member

    def _worker(self, place: Place) -> Member:
        name = f"{place.name}.{place.number}"
        pool = ("--pool", "prefork", "--concurrency", "2") if place.prefork else ()
        command = worker_command([*pool, "-n", f"{name}@storm"])
        command[2] = "tests.chaos.storm.worker"  # for Celery's own module
        more = {"SUREFOOT_ACTION_MODULES": place.build, CLOCK: str(clock_of(self.folder, name)), **POOL_ENVIRONMENT}
        return self._process(name, command, more)

    def _producer(self, place: Place) -> Member:
        name = f"{place.name}.{place.number}"
        command = [sys.executable, "-m", "tests.chaos.storm.producing", name, str(self.folder)]
        asks = {"SUREFOOT_API_URL": f"http://127.0.0.1:{self.api_port}", "SUREFOOT_API_KEY": self.api_key}
        more = asks if place.over_http else {}
        return self._process(name, [*command, str(self.seed), f"{self.per_second}"], more)

    def _api(self, place: Place) -> Member:
        command = [sys.executable, "-m", "tests.chaos.storm.api", str(self.api_port)]
        return self._process(f"{place.name}.{place.number}", command, {})

    def _process(self, name: str, command: Sequence[str], more: Mapping[str, str]) -> Member:
        log = self.folder / "logs" / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**self.environment, **more},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return Member(name, process, log)


def tell(member: Member, order: str) -> None:
    """Give a producer an order; one that has just died hears nothing."""
    assert member.process.stdin is not None
    with suppress(OSError):
        member.process.stdin.write(f"{order}\n".encode())
        member.process.stdin.flush()


def clock_of(folder: Path, name: str) -> Path:
    """Return the file that says how far a worker's clock is off."""
    return folder.parent / "clocks" / name.replace(".", "-")


def places(*, workers: int, producers: int) -> list[Place]:
    """Return the places of a storm: of so many workers, one of them with child processes, and producers, and the API.

    The last of the producers asks over HTTP.

    All workers begin with the current build; the storm itself brings in the next one, by `version_skew`.
    """
    performing = [Place(f"worker-{n}", "worker", build=NOW, prefork=n == 2) for n in range(1, workers + 1)]
    asking = [Place(f"producer-{n}", "producer", over_http=n == producers) for n in range(1, producers + 1)]
    return [*performing, Place("api-1", "api"), *asking]
