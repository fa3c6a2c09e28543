"""How far a worker has served its queues, and what follows for a job that it has not come across."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from worker.attempt import Attempt
from worker.served import Served


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the clock."""
    now = [0.0]
    monkeypatch.setattr("worker.served.time.monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] = seconds

    return move


def claimed(late: float, **other: Any) -> Attempt:
    """An attempt at a job that had been due for so long."""
    facts: dict[str, Any] = {"queue": "q", "priority": 5, "fence": 1} | other
    return Attempt(
        job_id=UUID(int=1),
        tenant="default",
        action="test.it",
        params={},
        number=1,
        traceparent="",
        request_id="r",
        user_id=None,
        agent_id=None,
        maybe_happened=False,
        cancel_requested=False,
        deadline_left=None,
        repeat_left=None,
        intended_before=False,
        conversation_id=None,
        late_seconds=late,
        **facts,
    )


def test_what_became_due_well_before_what_was_served_is_past_and_nothing_else_is(at: Callable[[float], None]) -> None:
    served = Served()
    at(100.0)
    served.note([claimed(10.0)])  # due at 90
    at(105.0)
    assert served.is_past("q", 5, late_seconds=20.0)  # due at 85
    assert not served.is_past("q", 5, late_seconds=16.0)  # at 89: rings of two producers may be so far apart
    assert not served.is_past("q", 5, late_seconds=1.0)


def test_what_is_served_late_takes_nothing_back(at: Callable[[float], None]) -> None:
    served = Served()
    at(100.0)
    served.note([claimed(1.0), claimed(50.0)])
    assert served.is_past("q", 5, late_seconds=10.0)


@pytest.mark.parametrize(
    "other", [{"queue": "another"}, {"priority": 9}, {"fence": 2}], ids=["queue", "priority", "had before"]
)
def test_of_another_queue_or_priority_it_tells_nothing_nor_does_a_job_that_somebody_had_before(
    at: Callable[[float], None], other: dict[str, Any]
) -> None:
    served = Served()
    at(100.0)
    served.note([claimed(0.0, **other)])
    assert not served.is_past("q", 5, late_seconds=60.0)


def test_where_nothing_was_served_nothing_is_past(at: Callable[[float], None]) -> None:
    at(100.0)
    assert not Served().is_past("q", 5, late_seconds=1e6)


def test_what_waited_since_before_the_machine_was_started_counts_as_any_other(at: Callable[[float], None]) -> None:
    served = Served()
    at(5.0)
    served.note([claimed(100.0)])
    assert served.is_past("q", 5, late_seconds=110.0)
    assert not served.is_past("q", 5, late_seconds=90.0)
