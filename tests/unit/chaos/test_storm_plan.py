"""What a storm is to be, written down beside its evidence, by which it can be had again."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tests.chaos.mutants.catalogue import FOUND
from tests.chaos.storm import plan
from tests.chaos.storm.kinds import KINDS
from tests.chaos.storm.plan import DISK, Plan
from tests.chaos.storm.sizes import SIZES
from tests.houses import ROOT


@pytest.fixture(params=[True, False], ids=["with a disk", "without"])
def drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(plan, "can_have_a_disk", lambda: request.param)
    return plan.draw("slice", SIZES["slice"], 3, None)


def test_it_is_read_back_as_it_was_written(drawn: Plan, tmp_path: Path) -> None:
    plan.write(tmp_path, drawn)
    assert plan.read(tmp_path) == drawn


def test_a_kind_that_cannot_be_had_here_is_named_with_the_reason_and_has_no_quota(drawn: Plan) -> None:
    here = KINDS.keys() - drawn.not_here.keys()
    assert drawn.not_here.keys() <= {DISK}
    assert drawn.quotas == dict.fromkeys(here, 1)
    assert {each.kind for each in drawn.schedule} == here


def test_its_command_names_all_that_it_was_drawn_by(drawn: Plan) -> None:
    assert drawn.command == 'make chaos ARGS="--size slice --seed 3 --jobs 5000 --faults 108 --minutes 5"'
    assert next(plan.told(drawn)) == drawn.command


def test_a_kind_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(click.BadParameter, match="redis_flood"):
        plan.draw("slice", SIZES["slice"], 1, ["redis_flood"])


def test_a_storm_of_few_kinds_need_not_judge_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "can_have_a_disk", lambda: True)
    few = plan.draw("slice", SIZES["slice"], 1, ["redis_flush", "kill_worker"])
    assert (few.thorough, few.quotas) == (False, {"redis_flush": 1, "kill_worker": 1})


def test_the_documents_say_how_large_a_storm_is_and_how_much_the_checker_is_tried_with() -> None:
    size = SIZES["slice"]
    readme, failures = ((ROOT / name).read_text() for name in ("README.md", "docs/failure-modes.md"))
    assert f"a storm of {size.faults} faults of {len(KINDS)} kinds over {size.jobs:,} jobs" in readme
    assert f"breaks the product in {len(FOUND)} ways" in readme
    assert f"faults of {len(KINDS)} kinds" in failures
    assert f"faults of {len(KINDS)} kinds" in (ROOT / "CHANGELOG.md").read_text()
