"""What Prometheus is told of budgets and approvals, held to what the ledger says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from producer import Producer, Settings
from producer.api.metrics import MOST_BUDGETS
from tests.api_process import Api, api_of, bearer
from tests.integration.approving import WHY, enqueued, waiting
from tests.integration.test_budgets import claimed, intend, intent, jobs, money, settle
from tests.integration.test_statements import writer_of
from tests.scraped import Scraped


@pytest.fixture
def api(settings: Settings, tmp_path: Path) -> Iterator[Api]:
    with api_of(settings, tmp_path) as made:
        yield made


@pytest.fixture
def key(lone_producer: Producer) -> str:
    return lone_producer.keys.create("prometheus", ["admin"], who="tests")[1]


def scraped(api: Api, key: str) -> Scraped:
    answer = api.client.get("/metrics", headers=bearer(key))
    assert answer.status_code == 200
    return Scraped(answer.text)


def test_what_shares_have_spent_and_reserved_is_added_up_and_what_is_left_is_of_the_fullest_one(
    api: Api, key: str, engine: Engine, lone_producer: Producer
) -> None:
    lone_producer.budgets.add("b", per=["tenant"], usd=3, calls=10, reason="for the test")
    hand, three = writer_of(engine), jobs(lone_producer, 3)
    first, second, third = claimed(hand, *three)
    mine, other = money("1"), money("0.5", key='{"tenant":"other"}')
    assert intend(hand, intent(first, mine), intent(second, mine), intent(third, other)) == ["intended"] * 3
    assert settle(hand, first, "0.25") == "settled"
    told = scraped(api, key)
    assert {word: told.sum(f"surefoot_budget_{word}", budget="b", per="tenant", unit="usd") for word in OF_BUDGETS} == {
        "ceiling": 3,
        "spent": 0.25,
        "reserved": 1.5,
        "left": 1.75,
    }
    assert told.sum("surefoot_budget_spent", budget="b", unit="calls") == 1
    assert told.sum("surefoot_budget_reserved", budget="b", unit="calls") == 2
    assert told.sum("surefoot_budget_left", budget="b", unit="calls") == 8
    assert "tokens" not in {labels["unit"] for labels in labels_of(told)}  # of which it has no ceiling


def test_of_a_day_s_budget_only_today_counts_and_a_ceiling_that_was_set_is_the_one_in_force(
    api: Api, key: str, engine: Engine, lone_producer: Producer
) -> None:
    lone_producer.budgets.add("b", per=["tenant", "day"], usd=3, reason="for the test")
    hand, (job,) = writer_of(engine), jobs(lone_producer, 1)
    (attempt,) = claimed(hand, job)
    assert intend(hand, intent(attempt, money("1", daily=True))) == ["intended"]
    assert settle(hand, attempt, "0.5") == "settled"
    lone_producer.budgets.set("b", usd="2", reason="less is enough", who="ada")
    today = scraped(api, key)
    assert (left(today), today.sum("surefoot_budget_ceiling"), today.sum("surefoot_budget_spent")) == (1.5, 2, 0.5)
    with engine.begin() as connection:
        connection.execute(text("UPDATE budget_accounts SET ends_at = clock_timestamp() - interval '1 second'"))
    tomorrow = scraped(api, key)
    assert (left(tomorrow), tomorrow.sum("surefoot_budget_spent")) == (2, 0)


def test_however_many_budgets_and_shares_there_are_so_many_budgets_are_shown_and_the_fullest_is_among_them(
    api: Api, key: str, engine: Engine, lone_producer: Producer
) -> None:
    with engine.begin() as connection:
        connection.execute(MANY_BUDGETS, {"count": MOST_BUDGETS + 20})
        connection.execute(MANY_SHARES)
    told = scraped(api, key)
    shown = {labels["budget"] for labels in labels_of(told)}
    assert len(shown) == MOST_BUDGETS
    assert f"b{MOST_BUDGETS + 20}" in shown
    assert len(labels_of(told)) == 4 * MOST_BUDGETS
    assert lone_producer.budgets(limit=1)


def test_approvals_are_counted_while_they_wait_and_by_what_was_decided(
    api: Api, key: str, engine: Engine, lone_producer: Producer
) -> None:
    asked = [waiting(engine, lone_producer, job=enqueued(lone_producer, idempotency_key=f"k{n}")) for n in range(4)]
    lone_producer.approvals.approve(asked[0].id, digest=asked[0].digest, by="ben", reason=WHY)
    lone_producer.approvals.reject(asked[1].id, digest=asked[1].digest, by="eve", reason=WHY)
    with engine.begin() as connection:
        connection.execute(LONGER_AGO, {"id": asked[2].id, "seconds": 7_200})
    told = scraped(api, key)
    assert told.sum("surefoot_approvals_pending") == 2
    assert 7_200 <= told.sum("surefoot_approvals_oldest_pending_seconds") < 7_260
    decided = {verdict: told.sum("surefoot_approvals_decided", verdict=verdict) for verdict in VERDICTS}
    assert decided == dict.fromkeys(VERDICTS, 0) | {"approved": 1, "rejected": 1}
    with engine.begin() as connection:
        connection.execute(text("UPDATE approvals SET decided_at = decided_at - interval '25 hours'"))
    assert scraped(api, key).sum("surefoot_approvals_decided") == 0


def test_where_nobody_waits_nothing_is_said_to_wait(api: Api, key: str) -> None:
    told = scraped(api, key)
    assert told.sum("surefoot_approvals_pending") == told.sum("surefoot_approvals_oldest_pending_seconds") == 0


OF_BUDGETS = ("ceiling", "spent", "reserved", "left")
VERDICTS = ("approved", "rejected", "expired", "superseded", "withdrawn")
LONGER_AGO = text(
    "UPDATE approvals SET requested_at = clock_timestamp() - make_interval(secs => :seconds) WHERE id = :id"
)
MANY_BUDGETS = text("""
INSERT INTO budgets (name, per, usd, on_exhausted, declared_by, version)
SELECT 'b' || n, '{user}', 10, 'hold', 'person', 1 FROM generate_series(1, :count) n
""")
# The last budget has spent most.
MANY_SHARES = text("""
INSERT INTO budget_accounts (budget, key, day, spent_usd)
SELECT b.name, '{"user":"u' || n || '"}', '', CAST(substr(b.name, 2) AS int) / 100.0
FROM budgets b, generate_series(1, 20) n
""")


def left(told: Scraped) -> float:
    return told.sum("surefoot_budget_left", budget="b", unit="usd")


def labels_of(told: Scraped) -> list[dict[str, str]]:
    return [sample.labels for sample in told.samples() if sample.name.startswith("surefoot_budget_")]
