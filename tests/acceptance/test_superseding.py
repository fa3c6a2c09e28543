"""A true result that comes after a fallback stood in: it takes its place, and both facts stay, on real servers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from producer import State
from producer.cli import main
from producer.job import Job
from tests.houses import House, until

SECONDS = 20.0


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "calls")


def degraded(house: House, action: str, request_id: str, **params: Any) -> Job:
    """Have a job degraded; its true result may be there soon."""
    job = house.producer.enqueue(action, params, request_id=request_id, user_id="ann", agent_id="desk")
    until(lambda: any(event.kind == "degraded" for event in job.events))
    return job


def later(house: House, request_id: str) -> Job:
    """The job that was left behind for the true result."""
    (found,) = (record for record in house.producer.chain(request_id) if record.parent_job_id is not None)
    return house.producer.job(found.id)


def kinds(job: Job) -> list[str]:
    return [event.kind for event in job.events]


def test_a_true_result_that_comes_later_takes_the_fallback_s_place_and_both_facts_stay(house: House, log: str) -> None:
    job = degraded(house, "fallback.superseded", "superseded", log=log)
    until(lambda: job.refresh().state is State.SUCCEEDED)
    bringing = later(house, "superseded")
    assert (job.result, job.record.fallback, job.record.degraded_by, job.error) == (2, None, "out of retries", None)
    assert kinds(job)[-2:] == ["degraded", "superseded"]
    assert dict(job.events[-2].data or {})["true_result"] == str(bringing.id)
    said = dict(job.events[-1].data or {})
    assert said.pop("result_sha256") == sha256(b"2").hexdigest()
    assert said == {"by": str(bringing.id), "rule": "out of retries", "fallback": -1}
    assert (bringing.state, bringing.result, bringing.record.degraded_by) == (State.SUCCEEDED, 2, None)
    assert (bringing.record.idempotency_key, bringing.record.user_id) == (f"{job.id}:true-result", "ann")
    assert house.producer.enqueue("fallback.superseded", {"log": log}, idempotency_key=job.idempotency_key).get(1) == 2


def test_the_chain_and_the_job_show_both_facts(house: House, log: str) -> None:
    job = degraded(house, "fallback.superseded", "shown", log=log)
    until(lambda: job.refresh().state is State.SUCCEEDED)
    urls = {"SUREFOOT_DATABASE_URL": house.settings.database_url, "SUREFOOT_REDIS_URL": house.settings.redis_url}
    drawn = CliRunner().invoke(main, ["chain", "shown"], env=urls).output
    assert "out of retries: a true result came since" in drawn
    assert "1. fallback.superseded" in drawn
    history = CliRunner().invoke(main, ["show", str(job.id)], env=urls).output
    assert "superseded" in history
    assert "fallback -1" in history


@pytest.mark.parametrize(
    ("then", "state"), [("retry", State.DEAD), ("refused", State.FAILED)], ids=["out of retries", "refused"]
)
def test_where_no_true_result_comes_the_fallback_stays_and_nothing_further_is_tried(
    house: House, log: str, then: str, state: State
) -> None:
    job = degraded(house, "fallback.superseded", f"stays-{then}", log=log, then=then)
    bringing = later(house, f"stays-{then}").wait(SECONDS)
    assert (bringing.state, bringing.record.fallback) == (state, None)
    assert (job.refresh().state, job.record.fallback) == (State.DEGRADED, -1)
    assert len(house.producer.chain(f"stays-{then}")) == 2


def test_a_true_result_that_a_look_found_takes_the_fallback_s_place(house: House, log: str) -> None:
    job = degraded(house, "fallback.superseded_looked_up", "looked-up", log=log, then="unknown")
    until(lambda: job.refresh().state is State.SUCCEEDED)
    assert (job.result, kinds(later(house, "looked-up"))[-1], kinds(job)[-1]) == (2, "verified", "superseded")


def test_a_true_result_by_a_person_s_word_takes_the_fallback_s_place(house: House, log: str) -> None:
    job = degraded(house, "fallback.superseded_unsafe", "by-a-person", log=log, then="unknown")
    bringing = later(house, "by-a-person")
    until(lambda: bringing.refresh().state is State.IN_DOUBT)
    assert job.refresh().state is State.DEGRADED
    bringing.resolve("happened", result=41, reason="it is in their books")
    assert (job.refresh().state, job.result, kinds(job)[-1]) == (State.SUCCEEDED, 41, "superseded")


def test_a_person_who_gives_it_up_leaves_the_fallback(house: House, log: str) -> None:
    job = degraded(house, "fallback.superseded_unsafe", "given-up", log=log, then="unknown")
    bringing = later(house, "given-up")
    until(lambda: bringing.refresh().state is State.IN_DOUBT)
    bringing.resolve("abandon", reason="nobody knows")
    assert (job.refresh().state, job.record.fallback) == (State.DEGRADED, -1)


def test_where_the_deadline_leaves_no_time_none_is_left_behind(house: House, log: str) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.15)
    job = house.producer.enqueue("fallback.superseded", {"log": log}, request_id="no-time", deadline=soon)
    job.wait(SECONDS)
    assert len(house.producer.chain("no-time")) == 1


def test_a_job_whose_key_only_looks_so_takes_nobody_s_place(house: House, log: str) -> None:
    other = house.producer.enqueue("test.add", {"a": 1, "b": 2}, request_id="looks-so")
    other.get(SECONDS)
    key = f"{other.id}:true-result"
    pretender = house.producer.enqueue("fallback.superseded", {"log": log, "open_at": 1}, idempotency_key=key)
    assert pretender.get(SECONDS) == 1
    assert kinds(other)[-1] == "succeeded"


def test_where_the_key_for_the_true_result_is_somebody_else_s_the_job_is_dead_and_says_so(
    house: House, log: str
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    job = house.producer.enqueue("fallback.superseded_unsafe", {"log": log, "open_at": 9}, run_at=soon)
    other = {"log": log, "open_at": 1}
    house.producer.enqueue("fallback.superseded_unsafe", other, idempotency_key=f"{job.id}:true-result")
    assert job.wait(SECONDS).state is State.DEAD
    assert job.error is not None
    assert "out of retries: Retry: call" in job.error["message"]
    assert "true-result' of fallback.superseded_unsafe already stands for" in job.error["message"]
