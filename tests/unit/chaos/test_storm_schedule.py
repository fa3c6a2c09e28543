"""Which fault of a storm comes when: drawn from a seed, in waves with quiet between them, each lane one at a time."""

from __future__ import annotations

import json
from collections import Counter
from itertools import count, pairwise

import pytest

from tests.chaos.storm import schedule
from tests.chaos.storm.faults import FAULTS
from tests.chaos.storm.kinds import KINDS
from tests.chaos.storm.schedule import QUIET_SECONDS, WAVE_SECONDS, Planned
from tests.chaos.storm.sizes import SIZES

FAULTS_OF_A_SLICE = SIZES["slice"].faults


def drawn(seed: int = 1, faults: int = FAULTS_OF_A_SLICE, quota: int = 2) -> tuple[Planned, ...]:
    return schedule.make(seed, faults=faults, kinds=KINDS, quota=quota)


def test_every_kind_has_a_fault_that_does_it_and_every_fault_is_of_a_kind() -> None:
    assert FAULTS.keys() == KINDS.keys()
    assert len(KINDS) >= 25
    assert FAULTS_OF_A_SLICE >= 100


def test_the_same_seed_gives_the_same_storm_whatever_the_order_of_the_kinds() -> None:
    assert drawn(seed=7) == schedule.make(7, faults=FAULTS_OF_A_SLICE, kinds=sorted(KINDS, reverse=True), quota=2)


def test_another_seed_gives_another_storm() -> None:
    assert drawn(seed=1) != drawn(seed=2)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_has_as_many_faults_as_are_wanted_and_of_each_kind_its_quota(seed: int) -> None:
    planned = drawn(seed)
    assert len(planned) == FAULTS_OF_A_SLICE
    assert [each.number for each in planned] == list(range(1, FAULTS_OF_A_SLICE + 1))
    often = Counter(each.kind for each in planned)
    assert min(often[kind] for kind in KINDS) >= 2


def test_the_faults_of_a_lane_do_not_overlap() -> None:
    lanes: dict[str, list[Planned]] = {}
    for each in drawn(faults=500):
        lanes.setdefault(each.lane, []).append(each)
    for lane in lanes.values():
        assert all(earlier.at + earlier.seconds <= later.at for earlier, later in pairwise(lane))


def test_no_fault_lasts_into_the_quiet_after_its_wave() -> None:
    whole = WAVE_SECONDS + QUIET_SECONDS
    assert all(each.at % whole + each.seconds <= WAVE_SECONDS for each in drawn(faults=500))


@pytest.mark.parametrize(("faults", "minutes"), [(FAULTS_OF_A_SLICE, 5), (1_000, 36)])
def test_a_storm_is_over_in_time(faults: int, minutes: float) -> None:
    assert schedule.lasts(drawn(faults=faults)) <= minutes * 60


def test_what_comes_again_is_the_last_of_its_kind_after_its_lane_at_others_with_numbers_of_its_own() -> None:
    lane = [each for each in drawn() if each.lane == "rings"]
    comes = list(schedule.again(lane, "rings_stale", count(109)))
    assert [each.number for each in comes] == [109, 110, 111, 112]
    assert {each.kind for each in comes} == {"rings_stale"}
    assert {each.at for each in comes} == {lane[-1].at}
    assert len({each.choice for each in comes}) == schedule.AGAIN
    assert all(0 <= each.choice < 1 for each in comes)


def test_a_stop_of_a_worker_outlasts_its_lease() -> None:
    assert all(each.seconds >= 6 for each in drawn() if each.kind == "stop_worker")


def test_it_is_read_back_from_what_is_written_down() -> None:
    planned = drawn()
    assert schedule.read(json.loads(json.dumps(schedule.plain(planned)))) == planned
