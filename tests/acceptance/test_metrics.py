"""What workers and the API tell Prometheus, held to what the ledger says; and the probes beside it."""

from __future__ import annotations

import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from producer import Job, Settings
from tests.api_process import api_of, bearer
from tests.houses import ASYNCIO, House, house_of, until
from tests.scraped import Scraped, exporter_of, scrape, scrape_until
from tests.unit.markdown import tables

ANY_PORT = {"SUREFOOT_METRICS_ADDRESS": "127.0.0.1:0"}
SECONDS = 20.0
WORKERS, APIS = ({row["metric"]: row["labels"] for row in rows} for rows in tables("metrics.md")[:2])


@pytest.fixture(scope="module")
def house(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of(module_settings, tmp_path_factory.mktemp("house"), environment=ANY_PORT) as made:
        yield made


@pytest.fixture
def prefork(settings: Settings, tmp_path: Path) -> Iterator[House]:
    with house_of(settings, tmp_path, pool="prefork", environment=ANY_PORT) as made:
        yield made


def test_what_a_worker_counts_is_what_the_ledger_has(house: House) -> None:
    url = exporter_of(house.worker)
    before = scrape(url)
    jobs = [ask(house, "test.add", {"a": n, "b": n}) for n in range(20)]
    jobs += [ask(house, "test.fail", {"times": 2}) for _ in range(3)]
    jobs += [
        ask(house, "test.raise", {"kind": "unknown"}),
        ask(house, "test.unsafe_unknown", {}),
    ]
    until(lambda: all(job.refresh().state not in ("queued", "claimed", "running", "waiting") for job in jobs))
    ends = Counter(event.kind for job in jobs for event in job.events)
    after = scrape_until(url, lambda told: ended(told) - ended(before) >= 25)

    def counted(name: str, **labels: str) -> float:
        return after.sum(name, **labels) - before.sum(name, **labels)

    attempts = "surefoot_worker_attempts_total"
    assert counted(attempts, action="test.add", state="succeeded") == 20
    assert counted(attempts, action="test.fail", state="waiting") == ends["attempt_failed"] == 6
    assert counted(attempts, action="test.fail", state="succeeded") == 3
    assert counted(attempts, action="test.unsafe_unknown", state="in_doubt") == 1
    assert counted("surefoot_worker_attempt_seconds_count") == ends["intended"]
    assert counted("surefoot_worker_claim_delay_seconds_count") == ends["claimed"]
    assert counted("surefoot_worker_batch_rows_sum", kind="settle") == counted(attempts)
    assert counted("surefoot_worker_batch_rows_sum", kind="claim") >= ends["claimed"]


def test_holds_tokens_and_cost_are_counted_by_action(house: House, tmp_path: Path) -> None:
    url = exporter_of(house.worker)
    ask(house, "test.hold", {"times": 1, "log": str(tmp_path / "log")}).get(SECONDS)
    ask(house, "test.spend", {"tokens_in": 70, "tokens_out": 7, "cost": "0.25"}).get(SECONDS)
    told = scrape_until(url, lambda told: told.sum("surefoot_worker_cost_usd_total") > 0)
    assert told.sum("surefoot_worker_holds_total", action="test.hold", reason="rate") == 1
    assert told.sum("surefoot_worker_tokens_total", action="test.spend", direction="in") == 70
    assert told.sum("surefoot_worker_tokens_total", action="test.spend", direction="out") == 7
    assert told.sum("surefoot_worker_cost_usd_total", action="test.spend") == 0.25


def test_a_loop_that_an_action_keeps_to_itself_shows_as_lag(house: House, tmp_path: Path) -> None:
    url = exporter_of(house.worker)
    job = ask(house, "pool.block", {"log": str(tmp_path / "log"), "gate": str(tmp_path / "gate")})
    until(lambda: house.worker.events("loop.blocked"))
    (tmp_path / "gate").touch()
    job.get(SECONDS)
    scrape_until(url, _is_slow)


def test_every_metric_of_a_worker_and_of_the_api_is_documented_with_its_labels_and_no_other(
    house: House, tmp_path: Path
) -> None:
    _, key = house.producer.keys.create("prometheus", ["admin"], who="tests")
    ask(house, "test.add", {"a": 1, "b": 1}, queue="nobody-listens")
    house.producer.breakers.force("here", "open", reason="a test", new=True)
    house.producer.budgets.add("here", per=["tenant"], usd=1, reason="a test")
    with api_of(house.settings, tmp_path) as api:
        api.client.get("/livez")
        of_api = Scraped(api.client.get("/metrics", headers=bearer(key)).text).labels()
    of_worker = {
        name: labels
        for name, labels in scrape(exporter_of(house.worker)).labels().items()
        if name.startswith("surefoot")
    }
    assert _documented(WORKERS, of_worker) == of_worker
    assert _documented(APIS, of_api) == of_api


def test_the_api_says_how_much_there_is_to_do_by_queue_and_which_breakers_are_open(
    house: House, tmp_path: Path
) -> None:
    _, key = house.producer.keys.create("scaler", ["admin"], who="tests")
    for n in range(3):
        ask(house, "test.add", {"a": n, "b": 1}, queue="a-queue-of-its-own")
    house.producer.breakers.force("somewhere", "open", reason="a test", new=True)
    with api_of(house.settings, tmp_path) as api:
        told = Scraped(api.client.get("/metrics", headers=bearer(key)).text)
    assert told.sum("surefoot_queue_jobs", queue="a-queue-of-its-own", standing="due") == 3
    assert told.sum("surefoot_queue_oldest_due_seconds", queue="a-queue-of-its-own") > 0
    assert told.sum("surefoot_breaker_open", breaker="somewhere") == 1
    assert told.sum("surefoot_breakers", state="open") >= 1


def test_children_of_prefork_are_counted_as_one_and_one_that_is_killed_takes_nothing_along(prefork: House) -> None:
    url = exporter_of(prefork.worker)
    done = 0
    for _ in range(3):  # more deaths than there are places
        jobs = [ask(prefork, "test.add", {"a": n, "b": n}) for n in range(20)]
        for job in jobs:
            job.get(SECONDS)
        done += 20
        told = scrape_until(url, lambda told: ended(told) >= done)  # noqa: B023  called at once
        assert told.sum("surefoot_worker_attempts_total") == done
        children = prefork.worker.children
        assert len(children) == 2
        os.kill(children[0].pid, signal.SIGKILL)
        until(lambda: _has_other_children(prefork, children[0].pid))  # noqa: B023  called at once
    assert scrape(url).sum("surefoot_worker_attempts_total", action="test.add", state="succeeded") == 60


def test_a_worker_is_ready_until_it_is_told_to_stop_and_lives_until_it_has(own_ready: House, tmp_path: Path) -> None:
    url = exporter_of(own_ready.worker)
    until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
    assert httpx.get(f"{url}/livez").text == "yes\n"
    assert httpx.get(f"{url}/else").status_code == 404
    job = ask(own_ready, "pool.wait", {"log": str(tmp_path / "log"), "gate": str(tmp_path / "gate")})
    until(lambda: job.refresh().state == "running")
    own_ready.worker.process.send_signal(signal.SIGTERM)
    until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
    assert httpx.get(f"{url}/livez").status_code == 200
    (tmp_path / "gate").touch()
    until(lambda: job.refresh().state == "succeeded")


def test_a_worker_whose_address_is_taken_says_so_and_works(settings: Settings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with house_of(settings, tmp_path, environment={"SUREFOOT_METRICS_ADDRESS": address}) as house:
            assert ask(house, "test.add", {"a": 1, "b": 2}).get(SECONDS) == {"total": 3}
            assert [line["address"] for line in house.worker.events("metrics.unserved")] == [address]


@pytest.fixture
def own_ready(settings: Settings, tmp_path: Path) -> Iterator[House]:
    with house_of(settings, tmp_path, pool=ASYNCIO, environment=ANY_PORT) as made:
        yield made


def ask(house: House, action: str, params: dict[str, Any], *, queue: str | None = None) -> Job:
    """Ask under a key of its own: the same asked without one is the same job."""
    return house.producer.enqueue(action, params, idempotency_key=str(uuid4()), queue=queue)


def ended(told: Scraped) -> float:
    """How many attempts ended their jobs, or left them in doubt."""
    name = "surefoot_worker_attempts_total"
    return told.sum(name) - told.sum(name, state="waiting")


def _has_other_children(house: House, killed: int) -> bool:
    pids = {child.pid for child in house.worker.children}
    return len(pids) == 2 and killed not in pids


def _is_slow(told: Scraped) -> bool:
    name = "surefoot_worker_loop_lag_seconds"
    return told.sum(f"{name}_count") > told.sum(f"{name}_bucket", le="0.5")


def _documented(table: dict[str, str], told: dict[str, set[str]]) -> dict[str, set[str]]:
    """The page's metrics with their labels; a metric that has counted nothing yet shows none."""
    words = {name: set() if labels == "none" else set(labels.split(", ")) for name, labels in table.items()}
    return {name: labels if told.get(name) else set() for name, labels in words.items()}
