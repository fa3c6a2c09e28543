"""Budgets in the real ledger: reserved with the intent, settled once with what was used, whatever dies or repeats."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, text

from producer import Producer, State
from producer.budget_words import BudgetStanding
from producer.errors import BudgetNotFound, InvalidBudget
from producer.job import Job
from tests.integration.test_statements import Hand, expire_leases, settlement, take_over, writer_of
from worker.attempt import Attempt, Intent
from worker.budget_statements import Asking, Reservation, Spent, room
from worker.statements import Granted, Settled, intend_reserving, settle_spending

KEY = '{"tenant":"default"}'


def money(usd: str | None, *, budget: str = "b", key: str = KEY, daily: bool = False, **more: Any) -> Reservation:
    amount = None if usd is None else Decimal(usd)
    given: dict[str, Any] = {"tokens": 0, "calls": 1} | more
    return Reservation(budget=budget, key=key, tenant="default", daily=daily, usd=amount, **given)


def intent(attempt: Attempt, *reservations: Reservation, effect: str = "pure") -> Intent:
    asking = Asking(
        job_id=attempt.job_id, fence=attempt.fence, attempt=attempt.number, reservations=reservations or (money("1"),)
    )
    return Intent(
        job_id=attempt.job_id, fence=attempt.fence, effect=effect, repeat_seconds=None, data={}, asking=asking
    )


def intend(hand: Hand, *intents: Intent) -> list[Granted]:
    with hand.engine.connect() as connection:
        answers = intend_reserving(connection, hand.worker, hand.lease_seconds, intents)
    return [answers.get(each.job_id, "lost") for each in intents]


def settle(hand: Hand, attempt: Attempt, usd: str | None, *, at_least: bool = False, **fields: Any) -> Settled:
    amount = None if usd is None else Decimal(usd)
    spent = Spent(usd=amount, tokens=None, calls=None, at_least=at_least)
    given: dict[str, Any] = {"result": 1, "spent": spent} | fields
    with hand.engine.connect() as connection:
        return settle_spending(connection, hand.worker, [settlement(attempt, **given)])[attempt.job_id]


def claimed(hand: Hand, *jobs: Job) -> list[Attempt]:
    found = {attempt.job_id: attempt for attempt in hand.claim("test.add", 1, [job.id for job in jobs])}
    return [found[job.id] for job in jobs]


def jobs(producer: Producer, count: int) -> list[Job]:
    requests = [{"action": "test.add", "params": {"a": n, "b": 0}, "idempotency_key": f"k{n}"} for n in range(count)]
    return list(producer.enqueue_many(requests))


def standing(producer: Producer, name: str = "b") -> BudgetStanding:
    (found,) = producer.budgets(name)
    return found


def usd(producer: Producer, name: str = "b") -> tuple[str, str, str]:
    """What is spent, reserved and, of that, unknown."""
    found = standing(producer, name).usd
    return tuple(f"{Decimal(each).normalize():f}" for each in (found.spent, found.reserved, found.unknown))  # type: ignore[return-value]


@pytest.fixture
def budgeted(lone_producer: Producer) -> Producer:
    lone_producer.budgets.add("b", per=["tenant"], usd=3, reason="for the test")
    return lone_producer


def test_an_intent_reserves_and_the_outcome_settles_what_was_used(engine: Engine, budgeted: Producer) -> None:
    hand, (job,) = writer_of(engine), jobs(budgeted, 1)
    (attempt,) = claimed(hand, job)
    assert intend(hand, intent(attempt)) == ["intended"]
    assert usd(budgeted) == ("0", "1", "0")
    assert settle(hand, attempt, "0.25") == "settled"
    assert usd(budgeted) == ("0.25", "0", "0")
    kinds = [event.kind for event in job.events]
    assert kinds == ["accepted", "claimed", "budget_reserved", "intended", "budget_settled", "succeeded"]
    reserved, settled = job.events[2].data, job.events[4].data
    share = {"budget": "b", "key": {"tenant": "default"}}
    assert reserved == {"budgets": [share | {"usd": "1", "tokens": 0, "calls": 1}]}
    assert settled == {"budgets": [share | {"usd": "0.25", "tokens": 0, "calls": 1}]}


def test_who_finds_too_little_left_has_no_intent_and_reserves_nothing(engine: Engine, budgeted: Producer) -> None:
    hand, four = writer_of(engine), jobs(budgeted, 4)
    attempts = claimed(hand, *four)
    assert sorted(intend(hand, *map(intent, attempts))) == ["budget", "intended", "intended", "intended"]
    assert usd(budgeted) == ("0", "3", "0")
    states = [job.refresh().state for job in four]
    assert sorted(states) == [State.CLAIMED, *[State.RUNNING] * 3]


def test_of_several_budgets_all_are_reserved_or_none(engine: Engine, budgeted: Producer) -> None:
    budgeted.budgets.add("small", per=[], usd="0.5", reason="for the test")
    hand, (job,) = writer_of(engine), jobs(budgeted, 1)
    (attempt,) = claimed(hand, job)
    assert intend(hand, intent(attempt, money("1"), money("1", budget="small", key="{}"))) == ["budget"]
    assert usd(budgeted) == ("0", "0", "0")
    assert usd(budgeted, "small") == ("0", "0", "0")


def test_who_does_not_fit_keeps_nobody_behind_him_out(engine: Engine, budgeted: Producer) -> None:
    hand, three = writer_of(engine), jobs(budgeted, 3)
    attempts = claimed(hand, *three)
    asked = [intent(attempts[0], money("9")), intent(attempts[1], money("2")), intent(attempts[2], money("1"))]
    assert intend(hand, *asked) == ["budget", "intended", "intended"]


def test_a_repeat_of_an_intent_that_landed_reserves_once(engine: Engine, budgeted: Producer) -> None:
    hand, (job,) = writer_of(engine), jobs(budgeted, 1)
    (attempt,) = claimed(hand, job)
    assert [intend(hand, intent(attempt)) for _ in range(3)] == [["intended"]] * 3
    assert usd(budgeted) == ("0", "1", "0")


def test_a_repeat_of_an_outcome_that_landed_settles_once(engine: Engine, budgeted: Producer) -> None:
    hand, (job,) = writer_of(engine), jobs(budgeted, 1)
    (attempt,) = claimed(hand, job)
    intend(hand, intent(attempt))
    assert [settle(hand, attempt, "0.5") for _ in range(3)] == ["settled", "repeated", "repeated"]
    assert usd(budgeted) == ("0.5", "0", "0")


def test_what_a_crashed_attempt_had_reserved_stays_reserved_and_the_next_reserves_anew(
    engine: Engine, budgeted: Producer
) -> None:
    hand, (job,) = writer_of(engine), jobs(budgeted, 1)
    (attempt,) = claimed(hand, job)
    intend(hand, intent(attempt))
    expire_leases(engine)
    assert take_over(engine) == 1
    assert usd(budgeted) == ("0", "1", "1")
    (again,) = claimed(hand, job)
    assert intend(hand, intent(again)) == ["intended"]
    assert usd(budgeted) == ("0", "2", "1")
    assert settle(hand, again, "0.25") == "settled"
    assert usd(budgeted) == ("0.25", "1", "1")


def test_a_late_outcome_settles_what_its_own_attempt_had_reserved(engine: Engine, budgeted: Producer) -> None:
    hand, (job,) = writer_of(engine), jobs(budgeted, 1)
    (attempt,) = claimed(hand, job)
    intend(hand, intent(attempt))
    expire_leases(engine)
    take_over(engine)
    assert settle(hand, attempt, "0.75") == "late"
    assert usd(budgeted) == ("0.75", "0", "0")


@pytest.mark.parametrize(
    ("used", "more", "spent"),
    [
        pytest.param("0", "no more", "0", id="nothing: it is released"),
        pytest.param(None, "no more", "1", id="nobody knows: all of it"),
        pytest.param("0.25", "perhaps more", "1", id="some, and perhaps more: all of it"),
        pytest.param("1.5", "perhaps more", "1.5", id="more than was reserved, and perhaps more"),
        pytest.param("1.5", "no more", "1.5", id="more than was reserved"),
    ],
)
def test_what_is_spent_is_what_was_used_or_else_what_was_reserved(
    engine: Engine, budgeted: Producer, used: str | None, more: str, spent: str
) -> None:
    hand, (job,) = writer_of(engine), jobs(budgeted, 1)
    (attempt,) = claimed(hand, job)
    intend(hand, intent(attempt))
    settle(hand, attempt, used, at_least=more == "perhaps more")
    assert usd(budgeted) == (spent, "0", "0")


def test_an_intent_that_is_not_granted_for_another_reason_reserves_nothing(engine: Engine, budgeted: Producer) -> None:
    hand, (job,) = writer_of(engine), jobs(budgeted, 1)
    (attempt,) = claimed(hand, job)
    job.cancel()
    assert intend(hand, intent(attempt)) == ["cancelled"]
    assert usd(budgeted) == ("0", "0", "0")
    assert intend(writer_of(engine, "another"), intent(attempt)) == ["lost"]
    assert usd(budgeted) == ("0", "0", "0")


def test_what_an_action_is_not_bound_in_keeps_it_from_nothing(engine: Engine, budgeted: Producer) -> None:
    hand, three = writer_of(engine), jobs(budgeted, 3)
    attempts = claimed(hand, *three)
    dear, free = money("3"), money(None, tokens=None)
    assert intend(hand, intent(attempts[0], dear), intent(attempts[1], free)) == ["intended", "intended"]
    assert intend(hand, intent(attempts[2], free)) == ["intended"]


def test_each_key_and_each_day_has_a_share_of_its_own(engine: Engine, budgeted: Producer) -> None:
    budgeted.budgets.add("daily", per=["user", "day"], usd=1, reason="for the test")
    hand, two = writer_of(engine), jobs(budgeted, 2)
    attempts = claimed(hand, *two)
    of = [money("1", budget="daily", key=f'{{"tenant":"default","user":"u{n}"}}', daily=True) for n in range(2)]
    asked = [intent(attempt, share) for attempt, share in zip(attempts, of, strict=True)]
    assert intend(hand, *asked) == ["intended", "intended"]
    found = budgeted.budgets("daily")
    assert [each.key for each in found] == [{"tenant": "default", "user": "u0"}, {"tenant": "default", "user": "u1"}]
    with engine.connect() as connection:
        today = connection.execute(text("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD')")).scalar()
        assert {each.day for each in found} == {today}
        connection.execute(text("UPDATE budget_accounts SET day = '2020-01-01', ends_at = '2020-01-02'"))
        connection.execute(text("UPDATE budget_reservations SET day = '2020-01-01'"))
    (third,) = claimed(hand, budgeted.enqueue("test.add", {"a": 9, "b": 9}, idempotency_key="k9"))
    assert intend(hand, intent(third, of[0])) == ["intended"]


def test_who_was_not_let_through_is_told_what_is_left(engine: Engine, budgeted: Producer) -> None:
    hand, two = writer_of(engine), jobs(budgeted, 2)
    first, second = claimed(hand, *two)
    intend(hand, intent(first, money("2.5")))
    refused = intent(second)
    assert intend(hand, refused) == ["budget"]
    assert refused.asking is not None
    with engine.connect() as connection:
        (row,) = room(connection, [refused.asking])[second.job_id]
    assert (row.name, row.most_usd, row.reserved_usd, row.asked_usd, row.ends_in) == ("b", 3, Decimal("2.5"), 1, None)


def test_a_ceiling_that_an_operator_sets_is_in_force_at_once_and_wakes_who_waits(
    engine: Engine, budgeted: Producer
) -> None:
    hand, (job,) = writer_of(engine), jobs(budgeted, 1)
    (attempt,) = claimed(hand, job)
    asked = intent(attempt, money("5"))
    assert intend(hand, asked) == ["budget"]
    waits: dict[str, Any] = {"was": State.CLAIMED, "becomes": State.WAITING, "kind": "held", "delay": 3600.0}
    hand.settle([settlement(attempt, waiting_for="budget", waiting_on="b", **waits)])
    record = budgeted.budgets.set("b", usd=10, reason="the quarter is over", who="ada")
    assert record.ceilings.usd == 10
    assert record.declared.usd == 3
    assert (record.set_by, record.set_why) == ("ada", "the quarter is over")
    (again,) = claimed(hand, job)
    assert intend(hand, intent(again, money("5"))) == ["intended"]
    assert budgeted.budgets.reset("b", who="bob").ceilings.usd == 3
    assert [(act.act, act.who) for act in budgeted.acts()][:2] == [("reset budget", "bob"), ("set budget", "ada")]


def test_what_cannot_be_set_is_refused_and_says_why(budgeted: Producer) -> None:
    with pytest.raises(BudgetNotFound, match="did you mean 'b'"):
        budgeted.budgets.set("bb", usd=1, reason="x")
    with pytest.raises(InvalidBudget, match="remove it instead"):
        budgeted.budgets.set("b", usd=None, reason="x")
    with pytest.raises(InvalidBudget, match="is missing: say why"):
        budgeted.budgets.set("b", usd=1, reason=" ")
    with pytest.raises(InvalidBudget, match="is there already"):
        budgeted.budgets.add("b", per=[], usd=1, reason="x")
    budgeted.budgets.remove("b")
    assert list(budgeted.budgets.list()) == []
