"""The real Flower, started as it is deployed: what an operator looks for is there, and what he must not see is not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from producer import Job, Settings
from tests.houses import ROOT, STOP_SECONDS, House, house_of, until

SECONDS = 20.0
COMMAND = [str(Path(sys.executable).with_name("surefoot-worker")), "flower"]
USER, PASSWORD = "ada", "of-the-tests"
SECRET = "canary-4111-1111"


@dataclass(frozen=True, slots=True)
class Flower:
    """One Flower, and a client that knows its password."""

    url: str
    client: httpx.Client
    process: subprocess.Popen[bytes]

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Its tasks by their ids."""
        return dict(self.client.get("/api/tasks", params={"limit": 1000}).json())

    def task(self, job: Job, state: str) -> dict[str, Any]:
        """What it shows of a job, once it stands so."""
        until(lambda: self.tasks().get(str(job.id), {}).get("state") == state)
        return self.tasks()[str(job.id)]

    def ring(self, jobs: Sequence[Job], state: str) -> dict[str, Any]:
        """What it shows of the ring of several jobs, once it stands so."""
        told = f"{len(jobs)} jobs, the first {jobs[0].id}"
        stands = {"args": told, "state": state}
        return until(lambda: next((task for task in self.tasks().values() if stands.items() <= task.items()), {}))

    def page(self, path: str) -> str:
        """One of its pages, as its password's holder sees it."""
        answer = self.client.get(path)
        assert answer.status_code == 200
        return answer.text


@contextmanager
def flower_of(settings: Settings, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Flower]:
    """Start Flower, which is told nothing of Postgres."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = {
        "SUREFOOT_REDIS_URL": settings.redis_url,
        "FLOWER_BASIC_AUTH": f"{USER}:{PASSWORD}",
        "FLOWER_PERSISTENT": "true",
        "FLOWER_DB": str(folder / "flower"),
        "FLOWER_PORT": str(port),
        "FLOWER_ADDRESS": "127.0.0.1",
        **(environment or {}),
    }
    with (folder / "flower.log").open("ab") as output:
        process = subprocess.Popen(COMMAND, cwd=ROOT, env=os.environ | told, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _answers(url, process, folder), seconds=30)
        with httpx.Client(base_url=url, auth=(USER, PASSWORD), timeout=20) as client:
            yield Flower(url, client, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)


@pytest.fixture(scope="module")
def house(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of(module_settings, tmp_path_factory.mktemp("house")) as made:
        yield made


@pytest.fixture(scope="module")
def flower(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    with flower_of(house.settings, tmp_path_factory.mktemp("flower")) as made:
        until(lambda: made.client.get("/api/workers").json())  # it hears events from now on
        yield made


def test_each_action_is_shown_by_its_name_with_a_line_that_says_whose_and_no_params(
    house: House, flower: Flower
) -> None:
    job = house.producer.enqueue("test.raise", {"kind": "secret"}, request_id="order-2041", idempotency_key="card")
    task = flower.task(job, "FAILURE")
    assert (task["name"], task["args"]) == ("test.raise", "request order-2041")
    assert "JobFailed" in task["exception"]
    shown = flower.page(f"/task/{job.id}") + flower.page("/tasks") + str(task)
    assert "order-2041" in shown
    assert "hunter2secret" not in shown


def test_no_result_and_no_param_is_shown_anywhere(house: House, flower: Flower) -> None:
    job = house.producer.enqueue("pool.remember", {"mark": SECRET}, idempotency_key="mark")
    assert SECRET in str(job.get(SECONDS))
    flower.task(job, "SUCCESS")
    pages = [f"/task/{job.id}", "/tasks", "/workers", "/broker", f"/api/task/info/{job.id}", "/metrics"]
    shown = [flower.client.get(page).text for page in (*pages, f"/api/task/result/{job.id}")]
    assert not [text for text in shown if SECRET in text]


def test_retries_failures_fallbacks_and_successes_are_shown_as_such(house: House, flower: Flower) -> None:
    waiting = house.producer.enqueue("pool.end", {"way": "retry"}, idempotency_key="retry")
    refused = house.producer.enqueue("test.raise", {"kind": "refused"}, idempotency_key="refused")
    done = house.producer.enqueue("test.fail", {"times": 1}, idempotency_key="done")
    stood_in = house.producer.enqueue("fallback.value", {"how": "retry"}, idempotency_key="stood-in")
    assert "is waiting: Retry: not yet" in flower.task(waiting, "RETRY")["exception"]
    assert "no, and that is final" in flower.task(refused, "FAILURE")["exception"]
    assert "succeeded at attempt 2" in flower.task(done, "SUCCESS")["result"]
    assert flower.task(stood_in, "DEGRADED")["name"] == "fallback.value"
    names = {task["name"] for task in flower.tasks().values()}
    assert {"pool.end", "test.raise", "test.fail", "fallback.value"} <= names


def test_jobs_that_are_rung_together_are_one_task_of_their_action_that_says_how_many_and_how_they_ended(
    house: House, flower: Flower
) -> None:
    asked: list[tuple[str, dict[str, object]]] = [("pool.remember", {"mark": f"m{n}"}) for n in range(5)]
    asked += [("pool.end", {"way": way}) for way in ("well", "refused", "too")]
    asked += [("test.echo", {"value": n}) for n in range(2)]
    keys = (f"together-{n}" for n in range(len(asked)))
    jobs = house.producer.enqueue_many(
        {"action": action, "params": params, "idempotency_key": key}
        for (action, params), key in zip(asked, keys, strict=True)
    )
    well, mixed, sync = jobs[:5], jobs[5:8], jobs[8:]
    task = flower.ring(well, "SUCCESS")
    assert (task["name"], "5 succeeded" in task["result"]) == ("pool.remember", True)
    task = flower.ring(mixed, "FAILURE")
    assert (task["name"], "1 failed, 2 succeeded" in task["exception"]) == ("pool.end", True)
    # Those of a sync action are rung singly, and so are each a task of their own.
    assert [flower.task(job, "SUCCESS")["name"] for job in sync] == ["test.echo"] * 2
    assert not flower.tasks().keys() & {str(job.id) for job in (*well, *mixed)}


def test_every_worker_is_shown_with_what_it_is_doing(house: House, flower: Flower) -> None:
    def told() -> dict[str, Any]:  # of a worker that takes its time it may have heard a part
        answer: dict[str, Any] = flower.client.get("/api/workers", params={"refresh": 1}).json()
        return answer if all({"registered", "stats"} <= each.keys() for each in answer.values()) else {}

    (name,) = answer = until(told)
    assert "test.add" in " ".join(answer[name]["registered"])
    assert answer[name]["stats"]["pool"]["max-async-jobs"] == 2
    assert name in flower.page("/workers")
    assert "actions" in flower.page("/broker")
    assert house.worker.process.poll() is None


def test_nobody_without_the_password_sees_anything(flower: Flower) -> None:
    for path in ("/", "/tasks", "/workers", "/broker", "/api/tasks", "/api/workers"):
        assert httpx.get(flower.url + path).status_code == 401, path
        assert httpx.get(flower.url + path, auth=(USER, "wrong")).status_code == 401, path


@pytest.mark.parametrize(
    "path",
    [
        "/api/worker/shutdown/any",
        "/api/worker/pool/restart/any",
        "/api/task/revoke/00000000-0000-0000-0000-000000000000?terminate=true",
        "/api/task/send-task/test.add",
        "/api/task/async-apply/test.add",
        "/api/task/timeout/test.add",
    ],
)
def test_nothing_can_be_done_with_it_even_with_the_password(flower: Flower, path: str) -> None:
    assert flower.client.post(path, json={"args": ["1"]}).status_code == 403


def test_runtimes_are_in_buckets_that_suit_model_calls(house: House, flower: Flower) -> None:
    house.producer.enqueue("test.add", {"a": 1, "b": 1}, idempotency_key="buckets").get(SECONDS)
    until(lambda: 'le="120.0"' in flower.page("/metrics"))
    assert 'le="300.0"' in flower.page("/metrics")


def test_it_remembers_what_it_saw_when_it_starts_anew(house: House, tmp_path: Path) -> None:
    with flower_of(house.settings, tmp_path) as before:
        until(lambda: before.client.get("/api/workers").json())
        job = house.producer.enqueue("test.add", {"a": 2, "b": 2}, idempotency_key="persistent", request_id="kept")
        before.task(job, "SUCCESS")
    with flower_of(house.settings, tmp_path) as after:
        assert after.tasks()[str(job.id)]["args"] == "request kept"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "FLOWER_BASIC_AUTH is not set"),
        ({"FLOWER_BASIC_AUTH": "a:b", "FLOWER_UNAUTHENTICATED_API": "true"}, "would let anybody"),
    ],
    ids=["no password", "open API"],
)
def test_it_does_not_start_where_anybody_could_come_in(
    settings: Settings, environment: dict[str, str], words: str
) -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("FLOWER_")}
    told = bare | {"SUREFOOT_REDIS_URL": settings.redis_url} | environment
    done = subprocess.run(COMMAND, cwd=ROOT, env=told, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert words in done.stderr


def test_its_password_may_come_from_a_file(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "auth").write_text(f"{USER}:{PASSWORD}\n")
    environment = {"FLOWER_BASIC_AUTH_FILE": str(tmp_path / "auth"), "FLOWER_BASIC_AUTH": ""}
    with flower_of(settings, tmp_path, environment) as flower:
        assert flower.client.get("/workers").status_code == 200


def _answers(url: str, process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, (folder / "flower.log").read_text()[-3000:]
    try:
        return httpx.get(f"{url}/healthcheck").status_code == 200
    except httpx.TransportError:
        return False
