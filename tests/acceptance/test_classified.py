"""What an action's plain errors mean for its job, through a real worker."""

from __future__ import annotations

import pytest

from producer import State
from tests.houses import House, until

SECONDS = 20.0


@pytest.mark.parametrize(
    ("action", "how", "state"),
    [
        pytest.param("classified.one_call", "nobody listens", State.DEAD, id="a call that never arrived had no effect"),
        pytest.param("classified.one_call", "refused", State.FAILED, id="nor had one that was refused"),
        pytest.param("classified.one_call", "no answer", State.IN_DOUBT, id="one without an answer may have had"),
        pytest.param("classified.two_calls", "nobody listens", State.IN_DOUBT, id="another call may have had"),
        pytest.param("classified.own", "nobody listens", State.FAILED, id="the author's own word goes first"),
    ],
)
def test_an_unsafe_action_s_plain_error_means_what_is_known_of_its_call(
    house: House, action: str, how: str, state: State
) -> None:
    job = house.producer.enqueue(action, {"how": how}).wait(SECONDS)
    assert job.state is state
    assert job.record.attempt == (2 if state is State.DEAD else 1)


def test_a_plain_429_holds_the_dependency_and_spends_no_attempt(house: House) -> None:
    job = house.producer.enqueue("classified.one_call", {"how": "too many"})
    until(lambda: job.refresh().state is State.WAITING)
    assert (job.record.waiting_for, job.record.attempt) == ("rate", 0)
    held = until(lambda: house.worker.events("dependency.held"))[-1]
    assert (held["dependency"], held["seconds"]) == ("classified", 60)  # as it asked; who heard that comes later still
    (delay,) = [(event.data or {})["delay"] for event in job.events if event.kind == "held"]
    assert 60 <= delay <= 75
    assert job.cancel() == "cancelled"


def test_who_asks_for_patience_is_left_alone_by_everybody_though_the_job_that_heard_it_is_in_doubt(
    house: House,
) -> None:
    first = house.producer.enqueue("classified.overloaded").wait(SECONDS)
    assert first.state is State.IN_DOUBT
    until(lambda: any(line["dependency"] == "overloaded" for line in house.worker.events("dependency.held")))
    second = house.producer.enqueue("classified.overloaded", idempotency_key="second")
    until(lambda: second.refresh().state is State.WAITING)
    assert (second.record.waiting_for, second.record.attempt) == ("rate", 0)
    assert second.cancel() == "cancelled"
