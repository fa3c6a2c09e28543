"""Results are held to the action's own checks, and successes to what the world says of them, by real workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from producer import Settings, State
from producer.job import Job
from tests.houses import ACTION_MODULES, House, house_of, until
from tests.verified_actions import lines

SECONDS = 30.0
ACTIONS = ("checked.ask", "checked.pay")
GOOD = {"items": [1, 2], "total": 3}


@pytest.fixture(scope="module")
def house(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    environment = {"SUREFOOT_ACTION_MODULES": ",".join((*ACTION_MODULES, "tests.checked_actions"))}
    with house_of(module_settings, tmp_path_factory.mktemp("house"), environment=environment) as made:
        yield made


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "log")


def made(log: str) -> int:
    return len(Path(log).read_text().splitlines())


def why(job: Job) -> str:
    return str((job.events[-1].data or {})["why"])


@pytest.mark.parametrize("action", ACTIONS)
def test_a_result_that_passes_is_recorded_as_it_was_returned_whatever_a_check_does_to_it(
    house: House, log: str, action: str
) -> None:
    assert house.producer.enqueue(action, {"log": log}).get(SECONDS) == GOOD


def test_a_result_that_a_check_refuses_is_repaired_and_its_author_s_words_are_told(house: House, log: str) -> None:
    job = house.producer.enqueue("checked.ask", {"log": log, "totals": [4, 3]})
    assert job.get(SECONDS) == GOOD
    assert (job.record.attempt, job.record.repairs) == (1, 1)
    assert Path(f"{log}.told").read_text() == "tests.checked_actions.adds_up: the items make 3, not 4"


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        pytest.param({"totals": [4]}, "CheckFailed", id="a check says what is wrong"),
        pytest.param({"check": "false"}, "CheckFailed", id="a check returns False"),
        pytest.param({"check": "raise"}, "LookupError", id="a check raises"),
        pytest.param({"check": "exit"}, "SystemExit", id="a check would end the process"),
        pytest.param({"check": "hang"}, "AttemptTimeout", id="a check hangs"),
    ],
)
def test_a_result_that_is_refused_after_an_effect_is_in_doubt_and_the_effect_is_never_run_again(
    house: House, log: str, params: dict[str, Any], kind: str
) -> None:
    job = house.producer.enqueue("checked.pay", {"log": log, **params}).wait(SECONDS)
    assert (job.state, why(job)) == (State.IN_DOUBT, "invalid result after the effect")
    assert job.error is not None
    assert job.error["type"] == kind
    # Whoever comes after it has had its turn, too: nobody rings for it any more.
    assert house.producer.enqueue("checked.pay", {"log": f"{log}2"}).get(SECONDS) == GOOD
    assert made(log) == 1
    assert (job.record.attempt, job.refresh().state) == (1, State.IN_DOUBT)


CONFIRMED = ("confirmed.transfer", "confirmed.keyed")


@pytest.mark.parametrize("action", CONFIRMED)
def test_a_success_that_the_world_confirms_is_one(house: House, log: str, action: str) -> None:
    job = house.producer.enqueue(action, {"book": log})
    assert job.get(SECONDS) == 1
    assert (len(lines(log)), len(lines(f"{log}.looks"))) == (1, 1)
    assert [event.kind for event in job.events] == ["accepted", "claimed", "intended", "succeeded"]


def test_a_success_that_the_world_does_not_know_is_in_doubt_and_made_again_once_it_surely_did_not_happen(
    house: House, log: str
) -> None:
    job = house.producer.enqueue("confirmed.transfer", {"book": log, "lies": 1})
    assert job.get(SECONDS) == 1
    assert [line["attempt"] for line in lines(log)] == [2]
    (doubt,) = (event.data for event in job.events if event.kind == "in_doubt")
    assert doubt is not None
    assert doubt["error"] == {"type": "Unconfirmed", "message": "its look-up does not find it"}


@pytest.mark.parametrize("look", ["busy", "raise", "miss"])
def test_a_success_that_nobody_can_confirm_at_once_is_looked_up_later_and_not_made_again(
    house: House, log: str, look: str
) -> None:
    job = house.producer.enqueue("confirmed.transfer", {"book": log, "looks": [look]})
    until(lambda: job.refresh().record.finished_at, seconds=SECONDS)
    assert (job.state, job.result, len(lines(log))) == (State.SUCCEEDED, 1, 1)
    assert [event.kind for event in job.events][-2:] == ["in_doubt", "verified"]


def test_a_keyed_success_that_is_not_confirmed_is_repeated_under_its_key(house: House, log: str) -> None:
    job = house.producer.enqueue("confirmed.keyed", {"book": log, "lies": 1})
    assert job.get(SECONDS) == 1
    assert [line["key"] for line in lines(log)] == [f"{job.id}:0"]
    assert job.record.attempt == 2
