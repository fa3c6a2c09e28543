"""What stands in for a result that cannot be had: seen for what it is by everybody who looks, on real servers."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult
from click.testing import CliRunner

from producer import JobDegraded, JobFailed, Settings, State
from producer.cli import main
from producer.job import Job
from tests.celery_view import CeleryView
from tests.houses import ASYNCIO, House, house_of, start_worker, until

SECONDS = 20.0
FUNCTIONS = ("fallback.function", "fallback.function_sync", "fallback.function_async")


def last(job: Job) -> dict[str, Any]:
    return dict(job.events[-1].data or {})


def test_out_of_retries_a_plain_value_stands_in_and_the_history_says_by_which_rule(house: House) -> None:
    job = house.producer.enqueue("fallback.value", {}).wait(SECONDS)
    assert (job.state, job.record.attempt, job.record.degraded_by) == (State.DEGRADED, 2, "out of retries")
    assert [event.kind for event in job.events][-1] == "degraded"
    assert (last(job)["why"], last(job)["fallback"]) == ("out of retries", "value")
    assert last(job)["error"] == {"type": "Retry", "message": "the shop is closed"}


def test_a_result_that_can_be_had_is_a_success_all_the_same(house: House) -> None:
    job = house.producer.enqueue("fallback.value", {"how": "well"})
    assert job.get(SECONDS) == {"amount": 8.0, "said_by": "shop"}
    assert (job.state, job.record.fallback, job.record.degraded_by) == (State.SUCCEEDED, None, None)


def test_what_stands_in_is_never_the_result_of_whoever_waits(house: House) -> None:
    job = house.producer.enqueue("fallback.value", {})
    with pytest.raises(JobDegraded, match=r"is degraded: Retry: the shop is closed \(out of retries") as caught:
        job.get(SECONDS)
    assert (caught.value.rule, caught.value.fallback) == ("out of retries", {"amount": 9.5, "said_by": "list"})
    assert (job.result, job.record.fallback) == (None, {"amount": 9.5, "said_by": "list"})


@pytest.mark.parametrize("action", FUNCTIONS)
def test_a_function_is_given_params_context_and_cause(house: House, action: str) -> None:
    job = house.producer.enqueue(action, {"item": "tea"}).wait(SECONDS)
    assert job.record.fallback == {"amount": 1.0, "said_by": "tea out of retries Unknown 1"}
    assert last(job)["fallback"].startswith("tests.fallback_actions.from_list")


@pytest.mark.parametrize("action", FUNCTIONS)
@pytest.mark.parametrize(
    ("how", "second"),
    [
        ("raise", "ValueError: the list is lost"),
        ("lie", "InvalidRequest: result: "),
        ("hang", "AttemptTimeout: no answer within 2 s"),
        ("ask", "InvalidRequest: fallback: asked for follow-ups"),
    ],
)
def test_a_fallback_that_goes_wrong_leaves_the_job_dead_with_both_reasons(
    house: House, action: str, how: str, second: str
) -> None:
    job = house.producer.enqueue(action, {"item": "tea", "how": how}).wait(SECONDS)
    assert (job.state, job.record.fallback) == (State.DEAD, None)
    assert job.error is not None
    assert job.error["type"] == "FallbackFailed"
    assert job.error["message"].startswith("out of retries: Unknown: no answer for tea")
    assert second in job.error["message"]
    assert (last(job)["why"], last(job)["rule"]) == ("the fallback failed", "out of retries")


@pytest.mark.parametrize(
    ("action", "params", "state"),
    [
        pytest.param("fallback.unsafe", {"how": "retry"}, State.DEGRADED, id="where nothing happened it stands in"),
        pytest.param("fallback.unsafe", {"how": "unknown"}, State.IN_DOUBT, id="a doubt wins"),
        pytest.param("fallback.unsafe", {"how": "refused"}, State.FAILED, id="a refusal is an answer"),
        pytest.param("fallback.kept", {}, State.DEAD, id="dead where the author says so"),
        pytest.param("fallback.fails", {}, State.FAILED, id="failed where the author says so"),
    ],
)
def test_a_job_ends_as_its_action_says_and_never_degraded_in_doubt(
    house: House, action: str, params: dict[str, Any], state: State
) -> None:
    job = house.producer.enqueue(action, params).wait(SECONDS)
    assert (job.state, job.events[-1].kind) == (state, state)


def test_what_the_failed_attempt_asked_for_does_not_follow_a_fallback(house: House) -> None:
    job = house.producer.enqueue("fallback.follows", {}, request_id="follows-not").wait(SECONDS)
    assert job.state is State.DEGRADED
    assert len(house.producer.chain("follows-not")) == 1


def test_the_log_warns_of_a_fallback_that_stands_in(house: House) -> None:
    job = house.producer.enqueue("fallback.value", {}, idempotency_key="logged").wait(SECONDS)
    settled = [line for line in house.worker.lines_of(job.id) if line["event"] == "attempt.settled"][-1]
    assert (settled["level"], settled["state"], settled["why"]) == ("warning", "degraded", "out of retries")


def test_the_command_line_calls_it_degraded_and_exits_with_1(house: House) -> None:
    urls = {"SUREFOOT_DATABASE_URL": house.settings.database_url, "SUREFOOT_REDIS_URL": house.settings.redis_url}
    asked = ["enqueue", "fallback.value", "{}", "--key", "told", "--request-id", "told", "--wait", "20"]
    waited = CliRunner().invoke(main, asked, env=urls)
    assert waited.exit_code == 1
    assert "degraded" in waited.stdout
    assert "no result: out of retries; its fallback stands in: " in waited.stderr
    assert "said_by" not in waited.stdout
    drawn = CliRunner().invoke(main, ["chain", "told"], env=urls).output
    assert "out of retries: the fallback stands in for a result" in drawn
    facts = json.loads(CliRunner().invoke(main, ["chain", "told", "--json"], env=urls).output)
    assert (facts["state"], facts["result"], facts["fallback"]["said_by"]) == ("degraded", None, "list")


# ---- as Celery's users see it ----------------------------------------------------------------------------------


def test_celery_s_result_is_degraded_and_raised(house: House, app: Celery) -> None:
    job = house.producer.enqueue("fallback.value", {}, idempotency_key="celery")
    answer: AsyncResult[Any] = AsyncResult(str(job.id), app=app)
    for _ in range(2):  # from the ledger, and from its cache
        with pytest.raises(JobDegraded) as caught:
            answer.get(timeout=SECONDS)
        assert caught.value.fallback == {"amount": 9.5, "said_by": "list"}
    assert (str(answer.state), answer.ready(), answer.successful()) == ("DEGRADED", True, False)
    assert isinstance(answer.get(timeout=SECONDS, propagate=False), JobFailed)


@pytest.mark.parametrize("pool", ["custom", "prefork"])
def test_flower_shows_it_as_degraded(settings: Settings, tmp_path: Path, pool: str) -> None:
    with house_of(settings, tmp_path, pool=pool, options=["-E"]) as own, CeleryView(settings).events() as events:
        job = own.producer.enqueue("fallback.function", {"item": "tea"}).wait(SECONDS)
        assert job.state is State.DEGRADED
        until(lambda: any(event["type"] == "task-degraded" for event in events.of(job.id)))
        assert str(events.task(job.id).state) == "DEGRADED"
        assert "JobDegraded" in str(events.task(job.id).exception)
        assert not [event for event in events.of(job.id) if event["type"] in ("task-failed", "task-succeeded")]


# ---- a worker that ends meanwhile ------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [ASYNCIO, "prefork"])
def test_a_worker_told_to_go_while_a_fallback_is_made_gives_the_job_back(
    settings: Settings, tmp_path: Path, pool: str
) -> None:
    begun = tmp_path / "begun"
    environment = {"SUREFOOT_SOFT_SHUTDOWN_SECONDS": "0.2", "SUREFOOT_LEASE_SECONDS": "30"}
    with house_of(settings, tmp_path, pool=pool, environment=environment) as own:
        job = own.producer.enqueue("fallback.slow", {"begun": str(begun)})
        until(begun.exists)
        own.worker.process.send_signal(signal.SIGQUIT)
        own.worker.process.wait(SECONDS)
        assert (job.refresh().state, job.record.waiting_for, job.record.attempt) == (State.WAITING, "worker", 0)


def test_a_child_of_prefork_that_is_told_to_go_while_a_fallback_is_made_gives_the_job_back(
    settings: Settings, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    with house_of(settings, tmp_path, pool="prefork", environment={"SUREFOOT_LEASE_SECONDS": "30"}) as own:
        job = own.producer.enqueue("fallback.slow", {"begun": str(begun)})
        until(begun.exists)
        begun.unlink()
        CeleryView(settings).control("revoke", task_id=str(job.id), terminate=True)
        until(begun.exists)
        assert (job.refresh().record.crashes, job.state) == (0, State.RUNNING)
        own.worker.kill()  # it would wait for the fallback


def test_a_worker_killed_while_a_fallback_is_made_leaves_the_job_to_another(settings: Settings, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with house_of(settings, tmp_path) as own:
        job = own.producer.enqueue("fallback.slow", {"begun": str(begun)})
        until(begun.exists)
        own.worker.kill()
        begun.unlink()
        other = start_worker(settings, tmp_path / "other.log")
        try:
            until(begun.exists)
            assert job.refresh().record.crashes == 1
        finally:
            other.kill()
