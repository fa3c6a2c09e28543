"""What is true of every verdict, whatever the policy, the attempt and its outcome."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from producer.ledger.states import MOVES, State
from tasks import EffectClass, Policy
from tasks._outcomes import Failure, InvalidResult, Success
from tasks._retry_after import LONGEST_SECONDS
from worker.retry import SHORTEST_HOLD_SECONDS, Situation, decide

ERROR = {"type": "Unknown", "message": "no answer", "traceback": ""}
A_DAY_AND_A_QUARTER = LONGEST_SECONDS * 1.25

seconds = st.floats(0, 1e6)
lefts = st.none() | st.floats(-1e6, 1e6)
policies = st.builds(
    Policy,
    max_retries=st.none() | st.integers(0, 20),
    retry_backoff=seconds,
    retry_backoff_max=seconds,
    retry_jitter=st.booleans(),
)
situations = st.builds(
    Situation,
    effect=st.sampled_from(EffectClass),
    number=st.integers(1, 10**6),
    maybe_happened=st.booleans(),
    repeat_left=lefts,
    deadline_left=lefts,
)
anything = st.none() | st.floats()  # NaN and infinities included: an author's own error may say anything


def failures_of(
    *,
    advices: tuple[str, ...] = ("retry", "hold", "refuse"),
    after: st.SearchStrategy[float | None] = anything,
) -> st.SearchStrategy[Failure]:
    """Failed attempts with these words on what follows."""
    effects = st.sampled_from(["none", "unknown"])
    return st.builds(Failure, effect=effects, advice=st.sampled_from(advices), after=after, error=st.just(ERROR))


failures = failures_of()
outcomes = failures | st.just(Success(1)) | st.just(InvalidResult(ERROR))
jitters = st.floats(0, 1, exclude_max=True)
checked = settings(max_examples=50)


@given(policies, situations, outcomes, jitters)
@checked
def test_a_verdict_is_a_legal_move_from_running(
    policy: Policy, situation: Situation, outcome: Success | InvalidResult | Failure, jitter: float
) -> None:
    assert decide(policy, situation, outcome, jitter=jitter).state in MOVES[State.RUNNING]


@given(policies, situations, outcomes, jitters)
@checked
def test_an_effect_that_cannot_be_repeated_is_not_where_it_may_have_happened(
    policy: Policy, situation: Situation, outcome: Success | InvalidResult | Failure, jitter: float
) -> None:
    verdict = decide(policy, situation, outcome, jitter=jitter)
    safe = situation.effect in ("pure", "idempotent") or (situation.repeat_left or 0) > 0
    assert not (verdict.state is State.WAITING and verdict.maybe_happened and not safe)


@given(policies, situations, outcomes, jitters)
@checked
def test_no_repeat_comes_due_after_the_time_in_which_it_is_safe(
    policy: Policy, situation: Situation, outcome: Success | InvalidResult | Failure, jitter: float
) -> None:
    verdict = decide(policy, situation, outcome, jitter=jitter)
    if verdict.delay is not None and verdict.maybe_happened and situation.repeat_left is not None:
        assert verdict.delay < situation.repeat_left


@given(policies, situations, outcomes, jitters)
@checked
def test_what_is_pure_is_never_in_doubt(
    policy: Policy, situation: Situation, outcome: Success | InvalidResult | Failure, jitter: float
) -> None:
    verdict = decide(policy, situation, outcome, jitter=jitter)
    assert situation.effect != "pure" or not (verdict.state is State.IN_DOUBT or verdict.maybe_happened)


@given(policies, situations, failures, jitters)
@checked
def test_nothing_that_may_have_happened_ends_as_if_it_had_not(
    policy: Policy, situation: Situation, outcome: Failure, jitter: float
) -> None:
    verdict = decide(policy, situation, outcome, jitter=jitter)
    assert not (verdict.maybe_happened and verdict.state in (State.FAILED, State.DEAD))


@given(policies, situations, failures, jitters)
@checked
def test_a_delay_is_never_negative_and_never_beyond_its_bounds(
    policy: Policy, situation: Situation, outcome: Failure, jitter: float
) -> None:
    delay = decide(policy, situation, outcome, jitter=jitter).delay
    rounding = 0.001
    assert delay is None or 0 <= delay <= max(policy.retry_backoff_max, A_DAY_AND_A_QUARTER) + rounding


@given(policies, situations, failures_of(advices=("hold",)), jitters)
@checked
def test_a_hold_spends_no_attempt_and_never_turns_in_a_tight_circle(
    policy: Policy, situation: Situation, outcome: Failure, jitter: float
) -> None:
    verdict = decide(policy, situation, outcome, jitter=jitter)
    if verdict.delay is not None:
        assert verdict.unspent == 1
        assert verdict.delay >= SHORTEST_HOLD_SECONDS


@given(policies, situations, failures_of(after=st.floats(0, LONGEST_SECONDS)), jitters)
@checked
def test_nobody_is_asked_again_sooner_than_they_said(
    policy: Policy, situation: Situation, outcome: Failure, jitter: float
) -> None:
    delay = decide(policy, situation, outcome, jitter=jitter).delay
    assert delay is None or outcome.after is None or delay >= round(outcome.after, 3)


@given(policies, situations, jitters)
@checked
def test_a_deadline_is_never_waited_past(policy: Policy, situation: Situation, jitter: float) -> None:
    outcome = Failure("none", "retry", None, ERROR)
    delay = decide(policy, situation, outcome, jitter=jitter).delay
    assert delay is None or situation.deadline_left is None or delay < situation.deadline_left
