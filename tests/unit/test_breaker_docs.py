"""docs/retries-and-breakers.md says how breakers work: its settings are those there are, its afternoon is replayed."""

from __future__ import annotations

from dataclasses import MISSING, fields

from producer.breaker_words import CLOSED, HALF_OPEN, OPEN
from tasks import Dependency
from tests.unit.markdown import table
from worker.breaker_answers import REFUSED, Seen
from worker.breaker_rules import Rules

PAGE = "retries-and-breakers.md"
LEASE_MS = 65_000


def test_every_setting_is_listed_with_its_default_and_no_other() -> None:
    rows = table(PAGE, "setting", "default")
    # The budget for retries has its own section.
    listed = {row["setting"]: row["default"] for row in rows}
    budget = {row["setting of the Dependency"]: row["default"] for row in table(PAGE, "setting of the Dependency")}
    expected = {
        field.name: "required" if field.default is MISSING else _shown(field.default) for field in fields(Dependency)
    }
    assert listed | budget == expected
    assert list(listed) == [name for name in expected if name not in budget]
    assert all(row["meaning"].endswith(".") for row in rows)


def _shown(default: object) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_the_states_are_pybreaker_s() -> None:
    assert [row["state"] for row in table(PAGE, "state", "a call")] == [CLOSED, OPEN, HALF_OPEN]


def test_the_afternoon_goes_as_it_is_told() -> None:
    rules = Rules(Dependency(name="llm"))
    for row in table(PAGE, "at", "what happens"):
        now = round(float(row["at"].removesuffix(" s")) * 1000)
        moves = _happens(rules, now, row["what happens"])
        assert rules.state == row["breaker"], row
        assert (moves or ["-"]) == [row["why"]], row
        assert _comes(rules, now) == row["a job that comes then"], row


def _happens(rules: Rules, now: int, what: str) -> list[str]:
    answers = []
    match what.split():
        case ["nothing"]:
            return []
        case ["a", "job", "comes"]:
            answers = [rules.admit(now, f"t{now}", LEASE_MS, parks=False)]
        case [*count, "call" | "calls", "fail" | "fails"]:
            times = 1 if count[0] in ("a", "its") else int(count[0])
            seen = Seen(token=rules.token, epoch=rules.epoch, bad=1)
            answers = [rules.record(now, seen, jitter=0) for _ in range(times)]
        case [_, "call", "succeeds"]:
            answers = [rules.record(now, Seen(token=rules.token, epoch=rules.epoch, ok=[(0, 1)]), jitter=0)]
        case ["its", "call", "is", "cut", "off"]:
            answers = [rules.record(now, Seen(token=rules.token), jitter=0)]
    assert answers, what
    return [move.reason for answer in answers for move in answer.moves]


def _comes(rules: Rules, now: int) -> str:
    answer = rules.admit(now, f"then {now}", LEASE_MS, parks=False)
    return "goes" if answer.decision != REFUSED else f"waits for {answer.wait_ms / 1000:g} s"
