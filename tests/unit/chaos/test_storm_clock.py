"""The wall clock of a storm's workers: as far off as its file says, and no further."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.chaos.storm import clock
from tests.chaos.storm.clock import Clock, felt_in

HOUR = 3_600.0


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(clock, "LOOK_SECONDS", -1.0)  # it looks each time
    return tmp_path / "worker-1"


def test_it_shows_the_true_time_where_nobody_has_set_it(path: Path) -> None:
    assert abs(Clock(path).time() - time.time()) < 60


def test_it_jumps_forth_and_back_and_says_which_offset_it_goes_by(path: Path) -> None:
    made = Clock(path)
    for offset in (HOUR, -HOUR, 0.0):
        path.write_text(f"{offset}")
        assert abs(made.time() - time.time() - offset) < 60
        assert abs(made.time_ns() / 1e9 - time.time() - offset) < 60
        assert felt_in(path).read_text() == f"{offset}"


def test_what_is_no_number_leaves_it_where_it_is(path: Path) -> None:
    made = Clock(path)
    path.write_text(f"{HOUR}")
    made.time()
    path.write_text("")
    assert abs(made.time() - time.time() - HOUR) < 60
