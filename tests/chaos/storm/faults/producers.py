"""Faults of those by whom jobs come in, producers and the API: killed wherever they are, or at a point; stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from tests.chaos.evidence import Call
from tests.chaos.evidence_folder import LINES
from tests.chaos.processes import Member
from tests.chaos.storm.crew import Place, tell
from tests.chaos.storm.notes import Strike
from tests.chaos.storm.stage import Stage

Suits = Callable[[Place], bool]
Fault = Callable[[Stage, Strike], bool | None]

THERE_SECONDS, ASKS_SECONDS, BETWEEN_STOPS_SECONDS = 6.0, 3.0, 0.013
# Of the history: some seconds of all producers' lines.
TAIL_BYTES = 262_144


def _is_producer(place: Place) -> bool:
    return place.role == "producer"


def _is_library(place: Place) -> bool:
    """Whether it accepts and rings by itself."""
    return _is_producer(place) and not place.over_http


def _is_api(place: Place) -> bool:
    return place.role == "api"


def _asking(stage: Stage, place: Place) -> list[str]:
    """Return those whose requests are with this place: a producer itself, or whoever asks the API."""
    asks = [place] if _is_producer(place) else [each for each in stage.crew.producers if each.over_http]
    return [each.member.name for each in asks if each.member is not None]


def _kill(suits: Suits) -> Fault:
    """Return what kills it in the midst of a request; it bites where there is one, which then has no answer."""

    def kill(stage: Stage, strike: Strike) -> bool | None:
        with stage.crew.victim(suits, strike.planned.choice) as place:
            if place is None or place.member is None:
                return None
            strike.on(place.member.name)
            strike.detail("sigkill", "begin", place.member.name, place.member.pid)
            bit = _stop_amid(stage, place.member, _asking(stage, place))
            place.member.end()
            strike.detail("sigkill", "end", place.member.name, place.member.pid)
            return bit

    return kill


def _stop(suits: Suits) -> Fault:
    """Return what stops it in the midst of a request, and has it go on; it bites where one had no answer meanwhile."""

    def stop(stage: Stage, strike: Strike) -> bool | None:
        with stage.crew.victim(suits, strike.planned.choice) as place:
            if place is None or place.member is None:
                return None
            member, asking = place.member, _asking(stage, place)
            strike.on(member.name)
            strike.detail("sigstop", "begin", member.name, member.pid)
            amid = _stop_amid(stage, member, asking)
            time.sleep(strike.planned.seconds)
            bit = amid or bool(unanswered(stage.folder, asking))
            strike.detail("sigstop", "end", member.name, member.pid)
            member.signal_group(signal.SIGCONT)
            return bit

    return stop


def _stop_amid(stage: Stage, member: Member, asking: Collection[str]) -> bool:
    """Stop a process; return whether it is in the midst of a request, for which it is stopped again and again a while.

    Most requests take milliseconds: who waits for one, and stops it then, is too late.
    """
    latest = time.monotonic() + ASKS_SECONDS
    while True:
        member.signal_group(signal.SIGSTOP)
        if unanswered(stage.folder, asking):
            return True
        if time.monotonic() > latest:
            return False
        member.signal_group(signal.SIGCONT)
        time.sleep(BETWEEN_STOPS_SECONDS)


def unanswered(folder: Path, asking: Collection[str]) -> set[tuple[str, int]]:
    """Return what these have asked and not been answered, by the last lines of the history: who, and his number."""
    with (folder / LINES[Call]).open("rb") as history:
        history.seek(max(0, os.fstat(history.fileno()).st_size - TAIL_BYTES))
        lines = history.read().split(b"\n")[:-1]
    found: set[tuple[str, int]] = set()
    for line in lines:
        with suppress(ValueError):  # of the first one we may have a part
            call = json.loads(line)
            if call["process"] in asking:
                (found.add if call["op"] == "invoke" else found.discard)((call["process"], call["call"]))
    return found


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
    "kill_between_rings": _kill_at("ring.between", _is_library),
    "stop_producer": _stop(_is_producer),
    "kill_api": _kill(_is_api),
    "kill_api_mid_accept": _kill_at("accept.committed", _is_api),
    "stop_api": _stop(_is_api),
}
