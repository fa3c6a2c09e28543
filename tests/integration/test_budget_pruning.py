"""What is over of budgets goes after a while, and nothing that a ceiling counts, or that may come to something yet."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from producer import Producer
from tests.integration.test_budgets import claimed, intend, intent, jobs, money, settle, usd
from tests.integration.test_statements import expire_leases, take_over, writer_of
from worker.budget_pruner import prune_budgets

DAYS = 35


@pytest.fixture
def budgeted(lone_producer: Producer) -> Producer:
    lone_producer.budgets.add("b", per=["tenant"], usd=3, reason="for the test")
    lone_producer.budgets.add("daily", per=["tenant", "day"], usd=3, reason="for the test")
    return lone_producer


def age(engine: Engine, days: float) -> None:
    """Have all that there is of budgets be so much older, and of an earlier day."""
    older = {"older": timedelta(days=days)}
    with engine.connect() as connection:
        for statement in (
            "UPDATE budget_reservations SET day = '2020-01-01' WHERE day <> ''",
            "UPDATE budget_reservations SET reserved_at = reserved_at - :older, settled_at = settled_at - :older",
            "UPDATE budget_accounts SET day = '2020-01-01', ends_at = clock_timestamp() - :older WHERE day <> ''",
        ):
            connection.execute(text(statement), older if ":older" in statement else {})


def prune(engine: Engine, *, batch: int = 1_000) -> int:
    with engine.connect() as connection:
        return prune_budgets(connection, days=DAYS, batch=batch)


def rows(engine: Engine) -> tuple[int, int, int]:
    """How many reservations there are, settled and not, and how many shares."""
    with engine.connect() as connection:
        row = connection.execute(
            text("""
            SELECT count(settled_at) AS settled, count(*) - count(settled_at) AS unsettled,
              (SELECT count(*) FROM budget_accounts) AS shares FROM budget_reservations
            """)
        ).one()
    return row.settled, row.unsettled, row.shares


def test_what_is_over_for_long_enough_goes_and_what_a_ceiling_counts_stays(engine: Engine, budgeted: Producer) -> None:
    hand, (job, later) = writer_of(engine), jobs(budgeted, 2)
    attempt, second = claimed(hand, job, later)
    both = (money("1"), money("1", budget="daily", daily=True))
    assert intend(hand, intent(attempt, *both)) == ["intended"]
    settle(hand, attempt, "0.75")
    assert prune(engine) == 0
    age(engine, DAYS - 1)
    assert prune(engine) == 0
    assert rows(engine) == (2, 0, 2)
    age(engine, 2)
    age(engine, DAYS + 1)  # a day's end is set, not moved
    assert prune(engine) == 2
    assert rows(engine) == (0, 0, 1)
    assert usd(budgeted) == ("0.75", "0", "0")  # of no day: it still counts
    assert intend(hand, intent(second, *both)) == ["intended"]
    assert [event.kind for event in job.refresh().events].count("budget_settled") == 1


def test_what_nobody_settled_goes_with_its_day_and_stays_where_it_is_of_none(
    engine: Engine, budgeted: Producer
) -> None:
    hand, (job,) = writer_of(engine), jobs(budgeted, 1)
    (attempt,) = claimed(hand, job)
    intend(hand, intent(attempt, money("1"), money("1", budget="daily", daily=True)))
    expire_leases(engine)
    take_over(engine)
    age(engine, DAYS + 1)
    assert prune(engine) == 1
    assert rows(engine) == (0, 1, 1)
    assert usd(budgeted) == ("0", "1", "1")
    assert settle(hand, attempt, "0.5") == "late"  # of what is there still
    assert usd(budgeted) == ("0.5", "0", "0")


def test_an_outcome_that_comes_after_its_reservations_are_pruned_is_written_and_counts_nowhere(
    engine: Engine, budgeted: Producer
) -> None:
    hand, (job,) = writer_of(engine), jobs(budgeted, 1)
    (attempt,) = claimed(hand, job)
    intend(hand, intent(attempt, money("1", budget="daily", daily=True)))
    age(engine, DAYS + 1)
    prune(engine)
    assert rows(engine) == (0, 0, 0)
    assert settle(hand, attempt, "0.5") == "settled"
    assert rows(engine) == (0, 0, 0)


def test_it_goes_in_batches_and_what_others_have_locked_is_left_to_them(engine: Engine, budgeted: Producer) -> None:
    hand, four = writer_of(engine), jobs(budgeted, 4)
    attempts = claimed(hand, *four)
    share = money("0.1", budget="daily", daily=True)
    intend(hand, *[intent(attempt, share) for attempt in attempts])
    for attempt in attempts:
        settle(hand, attempt, "0.1")
    age(engine, DAYS + 1)
    with engine.connect() as other, other.execution_options(isolation_level="READ COMMITTED").begin():
        other.execute(text("SELECT FROM budget_reservations ORDER BY settled_at LIMIT 1 FOR UPDATE"))
        other.execute(text("SELECT FROM budget_accounts FOR UPDATE"))
        assert [prune(engine, batch=2), prune(engine, batch=2)] == [2, 1]
        assert rows(engine) == (1, 0, 1)
    assert prune(engine, batch=2) == 1
    assert rows(engine) == (0, 0, 0)
