"""Who a storm's faults may choose: living processes that no other fault is at work on, and that are not spared."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.processes import Member
from tests.chaos.storm.crew import LONG_SECONDS, PEACE_AFTER, PEACE_SECONDS, Crew, places

WAITS = "import sys; sys.stdin.read()"


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    """Four workers that do nothing, but live."""
    workers = [place for place in places(producers=1, workers=4) if place.role == "worker"]
    for place in workers:
        process = subprocess.Popen([sys.executable, "-c", WAITS], stdin=subprocess.PIPE, start_new_session=True)
        place.member = Member(place.name, process, tmp_path / "log")
    yield Crew(tmp_path, {}, seed=1, per_second=1.0, api_port=1, api_key="", places=workers)
    for place in workers:
        assert place.member is not None
        place.member.end()


def choices(crew: Crew) -> set[str]:
    """Return whom faults choose: each once more than there are places, one after the other."""
    found = set()
    for number in range(5):
        with crew.victim(lambda _: True, number / 5) as place:
            found.add(place.name if place is not None else "nobody")
    return found


def test_whoever_lives_may_be_hit_and_nobody_twice_at_a_time(crew: Crew) -> None:
    assert choices(crew) == {"worker-1", "worker-2", "worker-3", "worker-4"}
    with crew.victim(lambda place: place.name == "worker-2", 0.0):
        assert choices(crew) == {"worker-1", "worker-3", "worker-4"}


@pytest.mark.parametrize(
    ("number", "spared"), [(0, "worker-1"), (1, "worker-2")], ids=["one on a loop", "one with child processes"]
)
def test_in_a_long_storm_a_worker_of_either_kind_is_spared_for_a_while(crew: Crew, number: int, spared: str) -> None:
    """As if the storm had come as far as to the middle of that while."""
    crew.have_peace(LONG_SECONDS)
    since = LONG_SECONDS * PEACE_AFTER[number] + PEACE_SECONDS / 2
    for place in crew.places:
        place.peace = (place.peace[0] - since, place.peace[1] - since)
    assert choices(crew) == {"worker-1", "worker-2", "worker-3", "worker-4"} - {spared}


def test_before_and_in_a_shorter_storm_nobody_is_spared(crew: Crew) -> None:
    crew.have_peace(LONG_SECONDS - 1)
    assert {place.peace for place in crew.places} == {(0.0, 0.0)}
    crew.have_peace(LONG_SECONDS)
    assert choices(crew) == {"worker-1", "worker-2", "worker-3", "worker-4"}
