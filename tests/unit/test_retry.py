"""What follows an attempt, as docs/retries-and-breakers.md has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import pytest

from producer.ledger.states import State
from tasks import EffectClass, Policy
from tasks._fallback import ON_EXHAUSTED, OnExhausted
from tasks._outcomes import Failure, FollowUpsRefused, InvalidResult, Outcome, Success
from tests.unit.markdown import table
from worker.retry import Situation, Verdict, backoff, decide, repeat_seconds

RULES = table("retries-and-breakers.md", "why", "outcome")
DELAYS = table("retries-and-breakers.md", "outcome", "asked to wait")
EXHAUSTED = {row["on_exhausted"]: row["becomes"] for row in table("retries-and-breakers.md", "on_exhausted")}

ERROR = {"type": "Unknown", "message": "no answer", "traceback": ""}
# The delay is 2 seconds or more, whatever the outcome: a second left is too little, a thousand are enough.
POLICY = Policy(max_retries=1, max_repairs=0, retry_backoff=2, retry_jitter=False)
POLICIES = [POLICY, replace(POLICY, max_repairs=2)]
SOON, LATE = 1.0, 1_000.0

OUTCOMES: dict[str, list[Outcome]] = {
    "result": [Success({"a": 1})],
    "invalid result": [InvalidResult(ERROR)],
    "refused follow-ups": [FollowUpsRefused(ERROR)],
    "failure": [Failure("none", "retry", None, ERROR), Failure("unknown", "retry", None, ERROR)],
    "refusal": [Failure("none", "refuse", None, ERROR), Failure("unknown", "refuse", None, ERROR)],
    "hold": [Failure("none", "hold", None, ERROR), Failure("unknown", "hold", None, ERROR)],
    "stop": [Failure("none", "return", None, ERROR), Failure("unknown", "return", None, ERROR)],
}


@dataclass(frozen=True, slots=True)
class Case:
    """One combination of what the table names."""

    name: str
    outcome: Outcome
    situation: Situation
    policy: Policy

    @property
    def in_doubt(self) -> bool:
        """As the page defines it."""
        unknown = (
            isinstance(self.outcome, InvalidResult | FollowUpsRefused)
            or getattr(self.outcome, "effect", "none") == "unknown"
        )
        return self.situation.effect != "pure" and (self.situation.maybe_happened or unknown)

    @property
    def repeat_is_safe(self) -> bool:
        """As the page defines it; where the first intent set no end, the class alone says."""
        if self.situation.repeat_left is None:
            return self.situation.effect in ("pure", "idempotent")
        return self.situation.repeat_left > (0 if self.name == "stop" else SOON)

    @property
    def repairs(self) -> bool:
        """Whether the answer is one that the page has repaired."""
        return self.name == "invalid result" and self.situation.effect == "pure" and self.policy.max_repairs > 0


CONDITIONS: dict[str, Callable[[Case], bool]] = {
    "always": lambda _: True,
    "its number is over max_retries": lambda case: case.situation.number > 1,
    "max_repairs is declared, and used up": lambda case: case.repairs and case.situation.repairs == 2,
    "max_repairs leaves one, before the deadline": lambda case: case.repairs,
    "the delay reaches the deadline": lambda case: case.situation.deadline_left == SOON,
    "in doubt, and a repeat after the delay is not safe": lambda case: case.in_doubt and not case.repeat_is_safe,
}


def every_case() -> Iterator[Case]:
    outcomes = [(name, outcome) for name, kinds in OUTCOMES.items() for outcome in kinds]
    lefts = (None, SOON, LATE)
    for (name, outcome), effect, number, doubt, repeat, deadline, repairs, policy in product(
        outcomes, EffectClass, (1, 2), (False, True), lefts, lefts, (0, 2), POLICIES
    ):
        situation = Situation(
            effect=effect,
            number=number,
            maybe_happened=doubt,
            repeat_left=repeat,
            deadline_left=deadline,
            repairs=repairs,
        )
        yield Case(name, outcome, situation, policy)


def fits(rule: dict[str, str], case: Case) -> bool:
    return (
        case.name in rule["outcome"].split(", ")
        and (rule["effect class"] == "any" or case.situation.effect in rule["effect class"].split(", "))
        and CONDITIONS[rule["when"]](case)
    )


def rule_for(case: Case) -> dict[str, str]:
    return next(rule for rule in RULES if fits(rule, case))


def decided(case: Case, on_exhausted: OnExhausted = "dead") -> Verdict:
    return decide(replace(case.policy, on_exhausted=on_exhausted), case.situation, case.outcome, jitter=0)


def end_of(rule: dict[str, str], case: Case, on_exhausted: str) -> str:
    end = rule["in doubt" if case.in_doubt else "not in doubt"]
    return EXHAUSTED[on_exhausted] if end == "exhausted" else end


@pytest.mark.parametrize("on_exhausted", ON_EXHAUSTED)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["why"])
def test_every_case_that_a_rule_decides_is_decided_so(rule: dict[str, str], on_exhausted: OnExhausted) -> None:
    cases = [case for case in every_case() if rule_for(case) is rule]
    assert cases, "no case ever comes to this row"
    for case in cases:
        verdict = decided(case, on_exhausted)
        assert (
            verdict.why,
            verdict.state,
            verdict.waiting_for or "-",
            "not spent" if verdict.unspent else "spent",
        ) == (rule["why"], end_of(rule, case, on_exhausted), rule["waits for"], rule["attempt"])


def test_every_word_of_on_exhausted_is_told() -> None:
    assert tuple(EXHAUSTED) == ON_EXHAUSTED


def test_a_verdict_says_whether_the_effect_may_have_happened() -> None:
    for case in every_case():
        assert decided(case).maybe_happened is (case.in_doubt and case.name != "result")


def test_only_a_success_has_a_result_and_only_the_others_an_error() -> None:
    for case in every_case():
        verdict = decided(case)
        assert (verdict.result, verdict.error) == ((None, ERROR) if case.name != "result" else ({"a": 1}, None))


def test_exactly_what_waits_has_a_delay() -> None:
    for case in every_case():
        verdict = decided(case)
        assert (verdict.delay is not None) is (verdict.state is State.WAITING) is (verdict.waiting_for is not None)


def test_exactly_what_repairs_is_told_what_was_wrong() -> None:
    answer = InvalidResult(ERROR, "blue")
    for case in every_case():
        verdict = decided(replace(case, outcome=answer) if case.name == "invalid result" else case)
        expected = {"error": "no answer", "answer": "blue"} if verdict.why == "repair" else None
        assert verdict.repair == expected


def test_a_repair_is_due_at_once() -> None:
    assert {decided(case).delay for case in every_case() if decided(case).why == "repair"} == {0.0}


def test_an_action_without_a_limit_is_never_out_of_retries() -> None:
    situation = Situation(
        effect=EffectClass.PURE, number=10**6, maybe_happened=False, repeat_left=None, deadline_left=None
    )
    policy = Policy(max_retries=None)
    assert decide(policy, situation, OUTCOMES["failure"][0], jitter=0.5).why == "retry"


# ---- delays ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", DELAYS, ids=lambda row: ", ".join(row.values()))
def test_a_delay_is_as_worked_out(row: dict[str, str]) -> None:
    shortest, longest = map(float, row["delay"].removesuffix(" s").split(" to "))
    policy = Policy(
        max_retries=None,
        retry_backoff=float(row["retry_backoff"]),
        retry_backoff_max=float(row["retry_backoff_max"]),
    )
    asked = None if row["asked to wait"] == "-" else float(row["asked to wait"])
    outcome = Failure("none", "hold" if row["outcome"] == "hold" else "retry", asked, ERROR)
    situation = Situation(
        effect=EffectClass.PURE,
        number=int(row["attempt"]),
        maybe_happened=False,
        repeat_left=None,
        deadline_left=None,
    )
    assert decide(policy, situation, outcome, jitter=0).delay == shortest
    assert decide(policy, situation, outcome, jitter=1 - 1e-12).delay == longest


def test_without_jitter_a_delay_is_its_bound() -> None:
    policy = Policy(retry_backoff=1, retry_jitter=False)
    assert [backoff(policy, attempt, jitter=0.1) for attempt in (1, 2, 3)] == [1, 2, 4]


def test_delays_are_not_whole_seconds() -> None:
    assert backoff(Policy(retry_backoff=1), 1, jitter=0.12345) == 0.123


@pytest.mark.parametrize(
    ("effect", "seconds"),
    [("pure", None), ("idempotent", None), ("keyed", 80.0), ("verifiable", 0.0), ("unsafe", 0.0)],
)
def test_an_effect_may_be_repeated_for_as_long_as_its_class_allows(effect: str, seconds: float | None) -> None:
    assert repeat_seconds(EffectClass(effect), key_ttl=100) == seconds


def test_a_key_of_unknown_life_is_not_trusted() -> None:
    assert repeat_seconds(EffectClass.KEYED, key_ttl=None) == 0
