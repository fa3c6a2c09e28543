"""One budget and many workers: nobody overspends it, and nobody waits for another in a circle."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from sqlalchemy import Engine, text

from producer import Producer, Settings
from producer.ledger.engine import open_engine
from tests.integration.test_budgets import claimed, intend, intent, jobs, money, settle, standing
from tests.integration.test_statements import writer_of
from worker.attempt import Attempt
from worker.statements import Granted

WORKERS = 50


@pytest.fixture
def many(settings: Settings) -> Iterator[Engine]:
    """A connection for each of many workers."""
    engine = open_engine(settings.database_url, connections=WORKERS, name="tests")
    yield engine
    engine.dispose()


@pytest.mark.timeout(60)
def test_fifty_workers_that_race_for_a_budget_never_overspend_it(many: Engine, lone_producer: Producer) -> None:
    lone_producer.budgets.add("b", per=["tenant"], usd=30, reason="for the test")
    hands = [writer_of(many, f"w{n}") for n in range(WORKERS)]
    accepted = jobs(lone_producer, 2 * WORKERS)
    pairs = [claimed(hand, *accepted[2 * n : 2 * n + 2]) for n, hand in enumerate(hands)]
    barrier = threading.Barrier(WORKERS)

    def race(number: int) -> list[Granted]:
        barrier.wait()
        return intend(hands[number], *map(intent, pairs[number]))

    with ThreadPoolExecutor(WORKERS) as threads:
        answers = [answer for pair in threads.map(race, range(WORKERS)) for answer in pair]
    # A pair of which one fits by itself is told to ask again; whoever does finds what is left.
    while standing(lone_producer).usd.left and "budget" in answers:
        answers = [
            answer for hand, pair in zip(hands, pairs, strict=True) for answer in intend(hand, *map(intent, pair))
        ]
    assert answers.count("intended") == 30
    assert answers.count("budget") == 70
    assert (standing(lone_producer).usd.spent, standing(lone_producer).usd.reserved) == (0, 30)


@pytest.mark.timeout(60)
def test_workers_with_the_same_budgets_in_another_order_never_wait_in_a_circle(
    many: Engine, lone_producer: Producer
) -> None:
    names = [f"b{n}" for n in range(6)]
    for name in names:
        lone_producer.budgets.add(name, per=["tenant"], usd=10_000, reason="for the test")
    workers, each = 12, 8
    hands = [writer_of(many, f"w{n}") for n in range(workers)]
    accepted = jobs(lone_producer, workers * each)
    held = [claimed(hand, *accepted[n * each : (n + 1) * each]) for n, hand in enumerate(hands)]
    barrier = threading.Barrier(workers)

    def work(number: int) -> None:
        draw = random.Random(number)  # noqa: S311  an order, nothing secret

        def asked(attempt: Attempt) -> list[str]:
            chosen = draw.sample(names, 4)
            share = [money("1", budget=name) for name in chosen]
            assert intend(hands[number], intent(attempt, *share)) == ["intended"]
            return chosen

        barrier.wait()
        for attempt in held[number]:
            asked(attempt)
            assert settle(hands[number], attempt, "0.5") == "settled"

    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(work, range(workers)))
    found = [each for name in names for each in lone_producer.budgets(name)]
    assert sum(Decimal(each.usd.spent) for each in found) == Decimal("0.5") * workers * each * 4
    assert sum(Decimal(each.usd.reserved) for each in found) == 0
    with many.connect() as connection:
        deadlocks = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert connection.execute(deadlocks).scalar() == 0


def test_a_message_of_many_attempts_changes_a_share_s_row_once(many: Engine, lone_producer: Producer) -> None:
    lone_producer.budgets.add("b", per=["tenant"], usd=100, reason="for the test")
    hand = writer_of(many)
    attempts = claimed(hand, *jobs(lone_producer, 50))

    with many.connect() as connection:
        connection.execute(text("CREATE TABLE changes (n int)"))
        connection.execute(
            text(
                "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN INSERT INTO changes VALUES (1); RETURN NEW; END $$"
            )
        )
        connection.execute(
            text("CREATE TRIGGER noted AFTER UPDATE ON budget_accounts FOR EACH ROW EXECUTE FUNCTION note()")
        )
    assert set(intend(hand, *map(intent, attempts))) == {"intended"}
    with many.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM changes")).scalar() == 1
