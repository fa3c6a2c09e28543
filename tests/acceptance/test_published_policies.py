"""What workers do that have not loaded a policy which others have: they leave its jobs alone. Real workers, each with
modules of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from producer import PolicyNotFound, Producer, Settings, State
from producer.job import Job
from producer.ledger.engine import open_engine
from producer.ledger.policies import DeclaredPolicy, publish_declared
from tests.acceptance.test_cli import run
from tests.houses import WorkerProcess, start_worker, until

WITHOUT, WITH = "tests.guarded_actions", "tests.guarded_actions,tests.guarding_policies"
SECONDS = 30.0


class Fleet:
    """Workers with different code, one ledger, and a book in which each says what it did."""

    def __init__(self, settings: Settings, folder: Path, ending: ExitStack) -> None:
        self.settings, self.folder, self._ending = settings, folder, ending
        self.producer = Producer(settings)
        ending.callback(self.producer.close)
        self.book = folder / "book"

    def start(self, name: str, modules: str, *, pool: str = "custom", **environment: str) -> WorkerProcess:
        """Start a worker that calls itself so."""
        own = {"SUREFOOT_ACTION_MODULES": modules, "TEST_WORKER": name} | environment
        worker = start_worker(self.settings, self.folder / f"{name}.log", pool=pool, environment=own)
        self._ending.callback(worker.stop)
        return worker

    def send(self) -> Job:
        return self.producer.enqueue("guarded.send", {"book": str(self.book)}, idempotency_key=os.urandom(8).hex())

    def did(self) -> list[str]:
        """Who did something, in order."""
        if not self.book.exists():
            return []
        return [json.loads(line)["worker"] for line in self.book.read_text().splitlines()]

    def publish(self, version: int = 1) -> None:
        """Publish the policy as a worker that has it does, without one."""
        engine = open_engine(self.settings.database_url, connections=1, name="tests")
        with engine.connect() as connection:
            guard = DeclaredPolicy(name="guard", version=version, pattern="guarded.*", declared_in="elsewhere.guard")
            assert publish_declared(connection, [guard]) == ["guard"]
        engine.dispose()


@pytest.fixture
def fleet(settings: Settings, tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as ending:
        yield Fleet(settings, tmp_path, ending)


def said(job: Job) -> list[dict[str, Any]]:
    return [dict(event.data or {}) for event in job.events if event.kind == "policy"]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("pool", ["custom", "prefork"])
def test_from_the_publishing_of_a_policy_on_only_workers_that_have_loaded_it_perform_what_it_guards(
    fleet: Fleet, pool: str
) -> None:
    old = fleet.start("old", WITHOUT, pool=pool)
    assert [fleet.send().get(SECONDS) for _ in range(3)] == ["old"] * 3
    fleet.start("new", WITH)
    jobs = [fleet.send() for _ in range(10)]
    assert [job.get(SECONDS) for job in jobs] == ["new"] * 10
    assert [each["rule"] for job in jobs for each in said(job)] == ["guard"] * 10
    (told,) = until(lambda: old.events("policy.not_loaded"))[:1]
    assert (told["rule"], told["version"], told["here"], told["actions"]) == (
        "guard",
        1,
        "none of that name",
        ["guarded.send"],
    )


@pytest.mark.timeout(180)
def test_a_worker_learns_of_a_policy_by_the_claim_itself_and_gives_the_job_back_in_words(fleet: Fleet) -> None:
    # Its relay looks by itself too seldom to tell it first.
    worker = fleet.start("old", WITHOUT, SUREFOOT_RELAY_SECONDS="60")
    assert fleet.send().get(SECONDS) == "old"
    fleet.publish()
    job = fleet.send()
    until(lambda: job.refresh().record.waiting_for == "policy", seconds=SECONDS)
    last = dict(job.events[-1].data or {})
    assert (job.state, job.record.attempt, last["why"], last["rule"]) == (
        State.WAITING,
        0,
        "policy not loaded",
        "guard",
    )
    assert last["error"] == {
        "type": "PolicyNotLoaded",
        "message": "guard (version 1) has to be asked, and the worker that had the job has none of that name",
    }
    told = fleet.producer.explain(job.id)
    assert "has to be asked, and the worker that had it has not loaded that" in told.headline
    assert any(step.command == "surefoot policy retire guard --reason REASON" for step in told.next_steps)
    assert fleet.did() == ["old"]
    assert len(worker.events("policy.not_loaded")) == 1
    assert job.cancel() == "cancelled"
    worker.kill()  # a stop waits for its relay's next look


@pytest.mark.timeout(180)
def test_what_no_worker_has_loaded_waits_until_the_policy_is_retired_by_somebody_on_record(fleet: Fleet) -> None:
    fleet.publish()
    worker = fleet.start("old", WITHOUT)
    until(lambda: worker.events("policy.not_loaded"), seconds=SECONDS)
    jobs = [fleet.send() for _ in range(5)]
    checked = run(fleet.settings, "surefoot-worker", "check", SUREFOOT_ACTION_MODULES=WITHOUT)
    assert "policy guard (version 1, elsewhere.guard) is published, and this code has none of that name" in (
        " ".join(checked.stdout.split())
    )
    listed = run(fleet.settings, "surefoot", "policy", "published", "--json", SUREFOOT_ACTION_MODULES=WITHOUT)
    assert [json.loads(line)["name"] for line in listed.stdout.splitlines()] == ["guard"]
    words = ("surefoot", "policy", "retire", "guard", "--reason", "its module is gone", "--who", "ada")
    assert fleet.did() == []
    assert all(job.refresh().state in (State.QUEUED, State.WAITING) for job in jobs)
    assert run(fleet.settings, *words).stdout == "retired guard\n"
    assert [job.get(SECONDS) for job in jobs] == ["old"] * 5
    (act,) = fleet.producer.acts(who="ada")
    assert (act.act, act.target, act.reason) == ("retire policy", "guard", "its module is gone")
    assert fleet.producer.policies.list() == []
    with pytest.raises(PolicyNotFound):
        fleet.producer.policies.retire("guard", reason="again")


@pytest.mark.timeout(180)
def test_an_older_version_of_a_policy_is_not_the_policy_until_the_newer_one_is_retired(fleet: Fleet) -> None:
    fleet.start("old", WITH)
    new = fleet.start("new", WITH, TEST_GUARD_VERSION="2")
    jobs = [fleet.send() for _ in range(6)]
    assert [job.get(SECONDS) for job in jobs] == ["new"] * 6
    assert {each["version"] for job in jobs for each in said(job)} == {2}
    new.stop()  # and now the deploy is taken back
    rolled_back = fleet.send()
    until(lambda: (fleet.folder / "old.log").read_text().count("policy.not_loaded"), seconds=SECONDS)
    assert rolled_back.refresh().state in (State.QUEUED, State.WAITING)
    fleet.producer.policies.retire("guard", reason="version 2 was a mistake")
    assert rolled_back.get(SECONDS) == "old"
    assert [(each["rule"], each["version"]) for each in said(rolled_back)] == [("guard", 1)]


@pytest.mark.timeout(180)
def test_a_worker_that_declares_a_retired_policy_publishes_it_anew_when_it_starts(fleet: Fleet) -> None:
    first = fleet.start("first", WITH)
    fleet.producer.policies.retire("guard", reason="by mistake")
    job = fleet.send()
    assert job.get(SECONDS) == "first"  # who has loaded it asks it all the same
    assert [each["rule"] for each in said(job.refresh())] == ["guard"]
    first.stop()
    fleet.start("second", WITH)
    assert [each.name for each in fleet.producer.policies.list()] == ["guard"]
