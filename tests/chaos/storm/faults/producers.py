"""Faults of those by whom jobs come in, producers and the API: killed wherever they are, or at a point; stopped."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping

from tests.chaos.storm.crew import Place, tell
from tests.chaos.storm.notes import Strike
from tests.chaos.storm.stage import Stage

Suits = Callable[[Place], bool]
Fault = Callable[[Stage, Strike], bool | None]

THERE_SECONDS = 6.0


def _is_producer(place: Place) -> bool:
    return place.role == "producer"


def _is_library(place: Place) -> bool:
    """Whether it accepts and rings by itself."""
    return _is_producer(place) and not place.over_http


def _is_api(place: Place) -> bool:
    return place.role == "api"


def _kill(suits: Suits) -> Fault:
    """Return what kills it, wherever it is: it asks, or is asked, all the time."""

    def kill(stage: Stage, strike: Strike) -> bool | None:
        with stage.crew.victim(suits, strike.planned.choice) as place:
            if place is None or place.member is None:
                return None
            strike.on(place.member.name)
            strike.detail("sigkill", "begin", place.member.name, place.member.pid)
            place.member.end()
            strike.detail("sigkill", "end", place.member.name, place.member.pid)
            return True

    return kill


def _stop(suits: Suits) -> Fault:
    """Return what stops it, and has it go on."""

    def stop(stage: Stage, strike: Strike) -> bool | None:
        with stage.crew.victim(suits, strike.planned.choice) as place:
            if place is None or place.member is None:
                return None
            member = place.member
            strike.on(member.name)
            strike.detail("sigstop", "begin", member.name, member.pid)
            member.signal_group(signal.SIGSTOP)
            time.sleep(strike.planned.seconds)
            strike.detail("sigstop", "end", member.name, member.pid)
            member.signal_group(signal.SIGCONT)
            return True

    return stop


def _kill_at(point: str, suits: Suits) -> Fault:
    """Return what has it kill itself where it next comes to a point of a request's way."""

    def kill(stage: Stage, strike: Strike) -> bool | None:
        with stage.crew.victim(suits, strike.planned.choice) as place:
            if place is None or place.member is None:
                return None
            member = place.member
            strike.on(member.name)
            strike.detail("sigkill", "begin", member.name, member.pid)
            tell(member, f"die {point}")
            try:
                came_there = member.process.wait(THERE_SECONDS) == -signal.SIGKILL
            except subprocess.TimeoutExpired:
                came_there = False
            member.end()
            strike.detail("sigkill", "end", member.name, member.pid)
            return came_there

    return kill


FAULTS: Mapping[str, Fault] = {
    "kill_producer": _kill(_is_producer),
    "kill_mid_accept": _kill_at("accept.committed", _is_library),
    "kill_before_accept": _kill_at("accept.before", _is_library),
    "kill_mid_ring": _kill_at("ring.before", _is_library),
    "stop_producer": _stop(_is_producer),
    "kill_api": _kill(_is_api),
    "kill_api_mid_accept": _kill_at("accept.committed", _is_api),
    "stop_api": _stop(_is_api),
}
