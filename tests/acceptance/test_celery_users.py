"""What a user of Celery counts on, on the asyncio pool: its signals, its events, and tasks with its own retries."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from producer import Settings
from tests.celery_actions import HEARD
from tests.celery_view import CeleryView, Events
from tests.gates import Gate, enqueue_singly
from tests.houses import House, house_of, until

SECONDS = 20.0
MODULES = "tests.actions,tests.pool_actions,tests.celery_actions"
Heard = list[tuple[str, str | None]]
# By how a Celery task ends: the signals that tell it, with the state that the last of them names.
SIGNALS: dict[str, Heard] = {
    "succeeded": [("task_prerun", None), ("task_success", None), ("task_postrun", "SUCCESS")],
    "retried": [("task_prerun", None), ("task_retry", None), ("task_postrun", "RETRY")],
    "failed": [("task_prerun", None), ("task_failure", None), ("task_postrun", "FAILURE")],
}
ENDS: dict[str, tuple[str, dict[str, object]]] = {
    "succeeded": ("pool.end", {"way": "well"}),
    "retried": ("pool.end", {"way": "retry"}),
    "failed": ("pool.end", {"way": "refused"}),
    "succeeded, in a thread": ("test.add", {"a": 1, "b": 2}),
    "failed, in a thread": ("test.raise", {"kind": "refused"}),
}


@dataclass(frozen=True, slots=True)
class Ear:
    """What the worker's receivers of Celery's signals have written down."""

    file: Path

    def heard(self, task_id: object) -> Heard:
        """The signals of one Celery task so far, in order."""
        lines = [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []
        return [(line["signal"], line["state"]) for line in lines if line["id"] == str(task_id)]

    def wait_for(self, task_id: object, expected: Heard) -> None:
        """Wait until as many signals were heard, and hold them to what is expected."""
        until(lambda: len(self.heard(task_id)) >= len(expected))
        assert self.heard(task_id) == expected


@pytest.fixture(scope="module")
def ear(tmp_path_factory: pytest.TempPathFactory) -> Ear:
    return Ear(tmp_path_factory.mktemp("ear") / "heard")


@pytest.fixture(scope="module")
def house(module_settings: Settings, ear: Ear, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    environment = {"SUREFOOT_ACTION_MODULES": MODULES, HEARD: str(ear.file)}
    folder = tmp_path_factory.mktemp("house")
    with house_of(module_settings, folder, concurrency=20, environment=environment) as made:
        yield made
        assert not made.worker.events("pool.task_failed")
        assert not made.worker.events("pool.callback_failed")


@pytest.fixture
def events(house: House) -> Iterator[Events]:
    with CeleryView(house.settings).events() as heard:
        yield heard


def kinds(events: Events, task_id: object) -> list[str]:
    """What kinds of events of one Celery task were heard, in order."""
    return [event["type"] for event in events.of(task_id)]


@pytest.mark.parametrize("end", ENDS)
def test_celery_s_signals_and_events_tell_how_an_action_s_task_began_and_ended(
    house: House, ear: Ear, events: Events, end: str
) -> None:
    action, params = ENDS[end]
    how = end.partition(",")[0]
    (job,) = enqueue_singly(house.producer, [{"action": action, "params": params, "idempotency_key": action + how}])
    assert events.ended(job.id)["type"] == f"task-{how}"
    ear.wait_for(job.id, SIGNALS[how])
    assert [kind for kind in kinds(events, job.id) if kind != "task-sent"] == [
        "task-received",
        "task-started",
        f"task-{how}",
    ]
    assert events.task(job.id).name == action


def test_signals_of_tasks_that_run_at_the_same_time_on_one_thread_each_tell_of_their_own(
    house: House, ear: Ear, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    jobs = enqueue_singly(house.producer, gate.requests(range(15)))
    gate.wait_for(begun=15)
    assert [ear.heard(job.id) for job in jobs] == [[("task_prerun", None)]] * 15
    gate.open()
    for job in jobs:
        assert job.get(SECONDS) == "done"
        ear.wait_for(job.id, SIGNALS["succeeded"])


@pytest.mark.parametrize(("times", "end"), [(2, "succeeded"), (9, "failed")], ids=["succeeds", "out of retries"])
def test_a_task_of_celery_s_own_with_autoretry_is_retried_by_celery(
    house: House, ear: Ear, events: Events, times: int, end: str
) -> None:
    sent = CeleryView(house.settings).app.send_task("celery.flaky", args=[times], queue="actions")
    until(lambda: f"task-{end}" in kinds(events, sent.id))
    # That of the first try was sent by whoever asked; the worker sends the others.
    expected = {"task-sent": 2, "task-received": 3, "task-started": 3, "task-retried": 2, f"task-{end}": 1}
    assert Counter(kinds(events, sent.id)) == expected
    ear.wait_for(sent.id, SIGNALS["retried"] * 2 + SIGNALS[end])
