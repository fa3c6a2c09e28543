"""Which cells the crash matrix has, who plays them, and how much doubt each death excuses."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from producer.ledger.states import State
from tests.chaos.deaths import DEATHS
from tests.chaos.expectations import at_rest, ends
from tests.chaos.lane import Crew
from tests.chaos.matrix import CELLS, MUTANTS, Waiting
from tests.chaos.mutants import askers
from tests.chaos.mutants.catalogue import FOUND
from tests.chaos.mutants.defects import DEFECTS
from tests.chaos.points import POINTS
from tests.chaos.scenarios.plays import SCRIPTS
from tests.chaos.scenarios.scenario import PLAYED, SCENARIOS
from tests.houses import ROOT

BY_NAME = {cell.name: cell for cell in CELLS}


def test_every_cell_has_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(CELLS)


def test_every_point_has_every_death_that_can_happen_there() -> None:
    deaths = Counter(cell.point.name for cell in CELLS)
    assert {deaths[point.name] for point in POINTS if point.dies != "asker" and not point.looked_up} == {5 * 5 + 2 * 2}
    assert {deaths[point.name] for point in POINTS if point.dies == "asker"} == {5 * 5 + 2}
    assert {deaths[point.name] for point in POINTS if point.looked_up} == {5}


def test_the_readme_counts_the_points_and_the_deaths_as_they_are() -> None:
    words = dict(enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]))
    said = " ".join((ROOT / "README.md").read_text().split())
    assert f"somebody die at each of {len(POINTS)} points of a job's way, in up to {words[len(DEATHS)]} ways" in said
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert f"a crash matrix of {len(CELLS)} cells" in changes
    assert f"and {len(SCENARIOS)} scenarios" in changes
    assert f"`make mutants`: {len(MUTANTS)} deliberate defects" in changes
    assert f"`make mutants` breaks the product in {len(MUTANTS)} ways" in said


def test_every_defect_has_its_cell() -> None:
    assert {cell.mutant for cell in MUTANTS} == set(FOUND) == {*DEFECTS, *askers.DEFECTS}


def test_every_scenario_has_a_name_of_its_own_and_every_kind_its_script() -> None:
    assert len({scenario.name for scenario in SCENARIOS} | set(BY_NAME)) == len(SCENARIOS) + len(CELLS)
    assert {kind for kind, _, _ in PLAYED} == set(SCRIPTS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("effect.held-keyed-sigkill", {State.SUCCEEDED}),
        ("effect.held-verifiable-sigkill", {State.SUCCEEDED}),
        ("intend.before-unsafe-sigkill", {State.SUCCEEDED}),
        ("intend.committed-unsafe-sigkill", {State.IN_DOUBT}),
        ("effect.dropped-unsafe-redis_kill", {State.IN_DOUBT}),
        ("effect.held-unsafe-redis_kill", {State.SUCCEEDED, State.IN_DOUBT}),
        ("settle.committed-unsafe-sigkill", {State.SUCCEEDED}),
        ("rescue.before-unsafe-redis_kill", {State.IN_DOUBT}),
    ],
)
def test_a_death_excuses_only_so_much_doubt(name: str, expected: set[State]) -> None:
    assert ends(BY_NAME[name]) == expected


def test_only_a_person_ends_the_doubt_of_an_unsafe_job() -> None:
    assert State.IN_DOUBT in at_rest("unsafe")
    assert State.IN_DOUBT not in at_rest("verifiable")


def test_lanes_begin_with_the_workers_that_most_cells_need() -> None:
    cells = [BY_NAME["effect.held-keyed-sigkill"]] * 6 + [BY_NAME["effect.held-keyed-group_kill"]] * 3
    assert Waiting(cells).crews(3) == [Crew(), Crew(prefork=True), Crew()]


def test_a_lane_takes_cells_for_its_own_workers_first_and_then_any() -> None:
    single, group = BY_NAME["effect.held-keyed-sigkill"], BY_NAME["effect.held-keyed-group_kill"]
    defective = replace(single, mutant="relay_is_deaf")
    waiting = Waiting([group, single, defective])
    assert waiting.take(Crew()) == single
    assert {waiting.take(Crew()), waiting.take(Crew())} == {group, defective}
    assert waiting.take(Crew()) is None
