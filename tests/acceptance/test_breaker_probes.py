"""What a real worker's breaker makes of calls that neither succeed nor fail: as the one that tries, and cut off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from producer import Settings, State
from producer.breaker_words import key_of
from producer.breakers import Word
from producer.job import Job
from tests.gates import whys
from tests.houses import House, house_of, until
from tests.integration.breakers import moves_in

SECONDS = 60.0


@pytest.fixture(scope="module")
def house(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of(module_settings, tmp_path_factory.mktemp("probes"), concurrency=50) as made:
        yield made


@dataclass(slots=True)
class Probed:
    """A dependency that is as a file says, which its calls read."""

    house: House
    of: str
    mark: Path
    asked: int = 0

    @property
    def name(self) -> str:
        return f"probed of={self.of}"

    def becomes(self, word: str) -> None:
        self.mark.write_text(word)

    def ask(self, count: int = 1) -> list[Job]:
        keys, self.asked = range(self.asked, self.asked + count), self.asked + count
        params = {"of": self.of, "mark": str(self.mark)}
        return self.house.producer.enqueue_many(
            {"action": "probed.call", "params": params, "idempotency_key": f"{self.of}-{key}"} for key in keys
        )

    def ended(self, count: int = 1) -> set[State]:
        return {job.wait(SECONDS).state for job in self.ask(count)}

    def moves(self) -> list[str]:
        return moves_of(self.house, self.name)

    def open(self) -> None:
        self.becomes("ill")
        assert self.ended(5) == {State.DEAD}
        until(lambda: self.moves() == ["open"])

    def look(self) -> dict[str, str]:
        with redis.Redis.from_url(self.house.settings.redis_url, decode_responses=True) as client:
            found: Any = client.hgetall(key_of(self.name))
        return dict(found)


def moves_of(house: House, name: str) -> list[str]:
    with redis.Redis.from_url(house.settings.redis_url) as client:
        return [move.becomes for move in moves_in(client) if move.name == name]


@pytest.fixture
def probed(house: House, tmp_path: Path, request: pytest.FixtureRequest) -> Probed:
    return Probed(house, f"{abs(hash(request.node.name)):x}", tmp_path / "mark")


# ---- as the one that tries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["refused", "404", "409", "302", "excluded"])
def test_a_dependency_that_answers_whatever_it_is_asked_with_a_definite_no_is_well_again(
    probed: Probed, answer: str
) -> None:
    probed.open()
    probed.becomes(answer)
    assert len(probed.ended(3)) == 1
    until(lambda: probed.moves() == ["open", "half-open", "closed"])
    after = probed.ask(10)
    assert {job.wait(SECONDS).record.waiting_for for job in after} == {None}
    assert not [why for job in after for why in whys(job) if why.startswith("breaker")]  # nobody waits for it


def test_one_that_answers_500_is_not_though_it_says_that_asking_again_is_of_no_use(probed: Probed) -> None:
    probed.open()
    probed.becomes("500 for good")
    assert probed.ended() == {State.FAILED}
    until(lambda: probed.moves() == ["open", "half-open", "open"])


@pytest.mark.parametrize("word", ["never sent", "own fault", "declined"])
def test_a_try_that_says_nothing_of_whom_it_called_leaves_the_next_to_try(probed: Probed, word: str) -> None:
    probed.open()
    probed.becomes(word)
    assert probed.ended() <= {State.FAILED, State.DEAD}
    until(lambda: probed.look()["token"] == "")
    assert probed.moves() == ["open", "half-open"]
    probed.becomes("well")
    assert probed.ended(3) == {State.SUCCEEDED}
    assert probed.moves() == ["open", "half-open", "closed"]


def test_a_try_that_is_asked_for_patience_ends_its_turn_and_all_wait_for_that_and_then_the_next_tries(
    probed: Probed,
) -> None:
    probed.open()
    probed.becomes("hold")
    jobs = probed.ask(3)
    held = until(lambda: [line for line in house_events(probed) if line["dependency"] == probed.name])
    assert held[0]["why"] == "patience"
    assert probed.moves() == ["open", "half-open"]
    probed.becomes("well")
    assert {job.wait(SECONDS).state for job in jobs} == {State.SUCCEEDED}
    assert {job.record.attempt for job in jobs} == {1}  # patience spends none
    assert probed.moves() == ["open", "half-open", "closed"]


def house_events(probed: Probed) -> list[dict[str, Any]]:
    return probed.house.worker.events("dependency.held")


@pytest.mark.parametrize("word", ["auto", "close"])
def test_a_hold_for_an_hour_is_ended_by_an_operator_who_knows_better_and_who_waits_is_done(
    probed: Probed, word: Word
) -> None:
    probed.becomes("hold for an hour")
    jobs = probed.ask(3)
    until(lambda: all(job.refresh().record.waiting_for == "rate" for job in jobs))
    assert min((job.record.due_at - job.record.accepted_at).total_seconds() for job in jobs) > 3_000
    stands = probed.house.producer.breakers.get(probed.name)
    assert (stands.state, stands.held, stands.hold_jobs, stands.hold_reason) == ("closed", 0, 3, "patience")
    assert stands.hold_until is not None
    assert stands.hold_next_due is not None
    assert (stands.hold_next_due - datetime.now(UTC)).total_seconds() > 3_000
    probed.becomes("well")
    probed.house.producer.breakers.force(probed.name, word, reason="they are back")
    assert {job.wait(SECONDS).state for job in jobs} == {State.SUCCEEDED}
    assert probed.house.producer.breakers.history(probed.name)[0].reason == "they are back"


# ---- while it is closed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["refused", "404", "409", "302", "excluded", "never sent", "own fault", "declined"])
def test_what_is_no_failure_of_whom_is_called_opens_nothing(probed: Probed, word: str) -> None:
    probed.becomes(word)
    probed.ended(10)
    probed.becomes("ill")
    probed.ended(4)
    assert probed.moves() == []  # and was no success, either:
    probed.ended(1)
    until(lambda: probed.moves() == ["open"])


@pytest.mark.parametrize("word", ["500", "500 for good"])
def test_what_is_a_failure_of_it_opens_it_whether_or_not_it_is_tried_again(probed: Probed, word: str) -> None:
    probed.becomes(word)
    probed.ended(5)
    until(lambda: probed.moves() == ["open"])


# ---- cut off ---------------------------------------------------------------------------------------------------


def hurried(house: House, action: str, *, seconds: float, count: int = 5) -> list[Job]:
    """Ask with so little time that every call is cut off."""
    soon = datetime.now(UTC) + timedelta(seconds=seconds)
    return house.producer.enqueue_many(
        {"action": action, "params": {}, "idempotency_key": f"{action}-{n}", "deadline": soon} for n in range(count)
    )


@pytest.mark.parametrize(
    ("action", "seconds", "dependency"),
    [
        pytest.param("hangs.declared", 4, "hangs and is declared", id="longer than slow_call_seconds"),
        pytest.param("hangs.long", 12, "hangs for long", id="longer than half of what the action allows itself"),
    ],
)
def test_calls_that_hang_until_their_jobs_deadlines_cut_them_off_open_it(
    house: House, action: str, seconds: float, dependency: str
) -> None:
    jobs = hurried(house, action, seconds=seconds)
    assert {job.wait(SECONDS).state for job in jobs} == {State.DEAD}
    assert {(job.error or {})["type"] for job in jobs} == {"AttemptTimeout"}
    until(lambda: moves_of(house, dependency) == ["open"])


def test_calls_whose_jobs_had_hardly_any_time_say_nothing_though_it_is_their_client_that_gives_up(house: House) -> None:
    jobs = hurried(house, "hangs.client", seconds=10, count=10)
    assert {job.wait(SECONDS).state for job in jobs} == {State.DEAD}
    assert {(job.error or {})["type"] for job in jobs} == {"Retry"}
    assert moves_of(house, "hangs in its client") == []
