"""What a look at a job in doubt decides: the rules, one by one and over all that can be said."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.ledger.states import LOOKS, MOVES, State
from tasks import ActionSpec, CannotTell, DidNotHappen, Happened, Policy
from tasks._verify import Answer, VerifyHook
from tests.unit.test_spec import plain, spec_of
from worker.attempt import Attempt
from worker.doubt import LONGEST_PAUSE_SECONDS, Doubt, Ruling, rule

CAP = 3
EVERY = 30.0


def look(a: int) -> Answer:
    return Happened(a)


def spec(**policy: Any) -> ActionSpec:
    declared: dict[str, Any] = {"effect": "verifiable", "verify": look, "verify_every": EVERY}
    return spec_of(plain, policy=Policy(**policy), **declared)


def doubt(*, number: int = 1, **facts: Any) -> Doubt:
    attempt = Attempt(
        job_id=UUID(int=1),
        tenant="default",
        action="test.it",
        params={"a": 1},
        fence=7,
        number=number,
        queue="q",
        priority=4,
        traceparent="",
        request_id="r",
        user_id=None,
        agent_id=None,
        maybe_happened=True,
        cancel_requested=False,
        deadline_left=None,
        repeat_left=None,
        intended_before=True,
        conversation_id=None,
    )
    standing: dict[str, Any] = {"quiet_in": -1.0, "absent_for": None, "looks_left": LOOKS - 1, "crashes": 0}
    return Doubt(attempt=attempt, **standing | facts)


def ruled(answer: Answer, standing: Doubt, **policy: Any) -> Ruling:
    declared = spec(**policy)
    hook = declared.verify
    assert isinstance(hook, VerifyHook)
    return rule(declared, hook, standing, answer, crash_cap=CAP)


def test_what_happened_is_believed_at_once_even_while_more_may_arrive() -> None:
    ruling = ruled(Happened(5), doubt(quiet_in=90.0))
    assert (ruling.becomes, ruling.result, ruling.delay) == (State.SUCCEEDED, 5, None)


def test_what_is_not_there_yet_may_still_arrive_and_is_looked_for_when_nothing_can() -> None:
    ruling = ruled(DidNotHappen(), doubt(quiet_in=90.0))
    assert (ruling.becomes, ruling.why, ruling.delay) == (State.IN_DOUBT, "it may still arrive", 90.0)
    assert ruling.absent is False
    assert ruled(DidNotHappen(), doubt(quiet_in=1.0)).delay == EVERY


def test_once_not_there_is_not_enough() -> None:
    ruling = ruled(DidNotHappen(), doubt())
    assert (ruling.becomes, ruling.delay, ruling.absent) == (State.IN_DOUBT, EVERY, True)


def test_a_second_look_too_soon_after_the_first_counts_for_nothing() -> None:
    ruling = ruled(DidNotHappen(), doubt(absent_for=10.0))
    assert (ruling.becomes, ruling.delay) == (State.IN_DOUBT, EVERY - 10.0)


def test_twice_not_there_is_tried_again_at_once() -> None:
    ruling = ruled(DidNotHappen(), doubt(absent_for=EVERY))
    assert (ruling.becomes, ruling.delay, ruling.waiting_for) == (State.WAITING, 0.0, "retry")


@pytest.mark.parametrize(
    ("standing", "why"),
    [
        ({"number": 4}, "out of retries"),
        ({"crashes": CAP}, "it took too many workers down"),
    ],
)
def test_twice_not_there_and_not_to_be_tried_again_is_dead(standing: dict[str, Any], why: str) -> None:
    ruling = ruled(DidNotHappen(), doubt(absent_for=EVERY, **standing), max_retries=3)
    assert (ruling.becomes, ruling.why, ruling.delay) == (State.DEAD, why, None)


def test_an_action_that_never_gives_up_does_not() -> None:
    assert ruled(DidNotHappen(), doubt(absent_for=EVERY, number=999), max_retries=None).becomes is State.WAITING


def test_who_cannot_tell_is_asked_later_each_time_up_to_an_hour() -> None:
    delays = [ruled(CannotTell(), doubt(looks_left=left)).delay for left in range(LOOKS - 1, 0, -1)]
    assert delays[:4] == [EVERY, 2 * EVERY, 4 * EVERY, 8 * EVERY]
    assert delays[-1] == LONGEST_PAUSE_SECONDS


def test_one_that_is_asked_once_a_day_is_not_asked_each_hour() -> None:
    declared = spec_of(plain, effect="verifiable", verify=look, verify_every=86_400.0)
    assert declared.verify is not None
    assert rule(declared, declared.verify, doubt(), CannotTell(), crash_cap=CAP).delay == 86_400.0


@pytest.mark.parametrize("answer", [CannotTell(), DidNotHappen()])
def test_after_the_last_look_nobody_asks_any_more(answer: Answer) -> None:
    ruling = ruled(answer, doubt(looks_left=0))
    assert (ruling.becomes, ruling.delay) == (State.IN_DOUBT, None)


@given(
    answer=st.sampled_from([Happened(1), DidNotHappen(), CannotTell("busy")]),
    number=st.integers(1, 9),
    quiet_in=st.floats(-1e6, 1e6),
    absent_for=st.none() | st.floats(0, 1e6),
    looks_left=st.integers(0, LOOKS - 1),
    crashes=st.integers(0, 5),
)
def test_no_ruling_says_that_nothing_happened_on_less_than_two_looks_in_quiet(
    answer: Answer, number: int, quiet_in: float, absent_for: float | None, looks_left: int, crashes: int
) -> None:
    standing = doubt(number=number, quiet_in=quiet_in, absent_for=absent_for, looks_left=looks_left, crashes=crashes)
    ruling = ruled(answer, standing)
    assert ruling.becomes is State.IN_DOUBT or ruling.becomes in MOVES[State.IN_DOUBT]
    if ruling.becomes in (State.WAITING, State.DEAD):
        assert isinstance(answer, DidNotHappen)
        assert quiet_in <= 0
        assert absent_for is not None
        assert absent_for >= EVERY
    if ruling.becomes is State.IN_DOUBT:
        assert (ruling.delay is None) == (looks_left == 0)
        assert ruling.delay is None or ruling.delay >= 0
