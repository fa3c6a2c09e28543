"""A real Prometheus that scrapes a real API and worker: what KEDA scales by, what the dashboard asks, what alerts."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from math import ceil
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from producer import Producer, Settings
from tests.acceptance.test_gate_metrics import LONGER_AGO
from tests.acceptance.test_metrics import ANY_PORT
from tests.api_process import Api, api_of
from tests.houses import STOP_SECONDS, start_worker, until
from tests.integration.approving import enqueued, waiting
from tests.prometheus import Prometheus, prometheus_of
from tests.scraped import exporter_of
from tests.unit.test_deploy_files import RULES, of_kind, queries

pytestmark = pytest.mark.timeout(240)

JOBS, TAKEN = 7, 2
ALERTS = {rule["alert"]: rule["expr"] for rule in RULES}
# Of one budget hardly anything is left to a tenant; of the other nothing to one request, which is what it is for.
SPENT = text("""
INSERT INTO budget_accounts (budget, key, day, spent_usd) VALUES ('low', '{}', '', 0.95), ('each', '{}', '', 1)
""")
WAITS = text("UPDATE jobs SET state = 'waiting', waiting_for = 'budget', waiting_on = 'low' WHERE id = :id")
BY_JOBS, BY_AGE = (each["metadata"] for each in of_kind("ScaledObject")["surefoot-worker"]["spec"]["triggers"])


@pytest.fixture
def key(lone_producer: Producer) -> str:
    return lone_producer.keys.create("prometheus", ["admin"], who="tests")[1]


@pytest.fixture
def api(lone_producer: Producer, settings: Settings, tmp_path: Path) -> Iterator[Api]:
    assert lone_producer
    with api_of(settings, tmp_path) as made:
        yield made


@pytest.fixture
def prometheus(api: Api, key: str, tmp_path: Path) -> Iterator[Prometheus]:
    with prometheus_of(tmp_path, api=api, key=key) as made:
        yield made


def test_what_keda_asks_is_how_many_jobs_are_due_or_taken_and_how_old_the_oldest_is_and_no_word_is_not_nothing(
    prometheus: Prometheus, api: Api, lone_producer: Producer, settings: Settings, tmp_path: Path
) -> None:
    by_jobs, by_age = BY_JOBS["query"], BY_AGE["query"]
    until(lambda: prometheus.ask(by_jobs) == prometheus.ask(by_age) == [0])
    gate = tmp_path / "gate"
    params = {"log": str(tmp_path / "log"), "gate": str(gate)}
    jobs = [lone_producer.enqueue("pool.wait", params, idempotency_key=f"k{n}") for n in range(JOBS)]
    until(lambda: prometheus.ask(by_jobs) == [JOBS])
    until(lambda: prometheus.ask(by_age) and prometheus.ask(by_age)[0] > 1)
    assert ceil(JOBS / float(BY_JOBS["threshold"])) == 1  # a pod has room for them
    worker = start_worker(settings, tmp_path / "worker.log", concurrency=TAKEN)
    try:
        until(lambda: sum(job.refresh().state == "running" for job in jobs) >= TAKEN)
        # Who has been taken up keeps a worker as busy as who waits for one.
        until(lambda: prometheus.ask('surefoot_queue_jobs{queue="actions", standing="leased"} > 0'))
        until(lambda: prometheus.ask(by_jobs) == [JOBS])
        gate.touch()
        until(lambda: prometheus.ask(by_jobs) == prometheus.ask(by_age) == [0])
    finally:
        worker.stop()
    api.process.send_signal(signal.SIGTERM)
    api.process.wait(STOP_SECONDS)
    # KEDA takes no answer for an error, and leaves as many pods as there are: ignoreNullValues.
    until(lambda: prometheus.ask(by_jobs) == prometheus.ask(by_age) == [])
    assert (BY_JOBS["ignoreNullValues"], BY_AGE["ignoreNullValues"]) == ("false", "false")


def test_every_query_of_the_dashboard_and_every_rule_is_answered_without_an_error(
    lone_producer: Producer, api: Api, key: str, settings: Settings, tmp_path: Path
) -> None:
    worker = start_worker(settings, tmp_path / "worker.log", environment=ANY_PORT)
    try:
        with prometheus_of(tmp_path, api=api, key=key, workers=[exporter_of(worker)]) as prometheus:
            lone_producer.enqueue("test.add", {"a": 1, "b": 2}).get(20)
            until(lambda: [target["health"] for target in prometheus.targets()] == ["up", "up"])
            for name, query in queries():
                assert prometheus.ask(query.replace("$__rate_interval", "1m")) is not None, name
            until(lambda: prometheus.ask("sum(surefoot_worker_attempts_total)") == [1])
            names = {rule["alert"] for rule in RULES}
            until(lambda: {name for name, rule in prometheus.rules().items() if rule["health"] == "ok"} == names)
    finally:
        worker.stop()


def test_a_budget_that_runs_low_who_waits_for_it_and_who_waits_for_people_is_told_of(
    prometheus: Prometheus, lone_producer: Producer, engine: Engine
) -> None:
    names = ("SurefootBudgetRunsLow", "SurefootJobsWaitForBudgets", "SurefootApprovalsWait")

    def told() -> dict[str, int]:
        return {name: len(prometheus.ask(ALERTS[name])) for name in names}

    lone_producer.budgets.add("low", per=["tenant"], usd=1, reason="a test")
    lone_producer.budgets.add("each", per=["request"], usd=1, reason="a test")
    asked = waiting(engine, lone_producer)
    until(lambda: prometheus.ask("surefoot_approvals_pending") == [1])
    assert told() == dict.fromkeys(names, 0)
    held = enqueued(lone_producer, idempotency_key="held")
    with engine.begin() as connection:
        connection.execute(SPENT)
        connection.execute(WAITS, {"id": held.id})
        connection.execute(LONGER_AGO, {"id": asked.id, "seconds": 7_200})
    until(lambda: told() == dict.fromkeys(names, 1))
    assert prometheus.ask(f'{ALERTS["SurefootBudgetRunsLow"]} and on (budget) surefoot_budget_left{{budget="low"}}')
