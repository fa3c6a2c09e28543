"""The other brokers, with the crashes that matter: Redis behind Sentinels loses its master, RabbitMQ is killed."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from kombu import Connection

from producer import Job, Settings
from producer.broker import celery_url, transport_options
from tests.brokers import Rabbit, Sentineled, rabbit, sentineled
from tests.celery_view import CeleryView
from tests.houses import ROOT, House, house_of, start_worker, until, worker_environment

SECONDS = 40.0

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentineled]:
    with sentineled(tmp_path_factory.mktemp("sentinels")) as made:
        yield made


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    with rabbit(tmp_path_factory.mktemp("rabbit")) as made:
        yield made


@pytest.fixture
def behind_sentinels(sentinels: Sentineled, settings: Settings, tmp_path: Path) -> Iterator[House]:
    with house_of(dataclasses.replace(settings, redis_url=sentinels.url), tmp_path, concurrency=10) as made:
        yield made


@pytest.fixture
def on_rabbitmq(rabbitmq: Rabbit, settings: Settings, tmp_path: Path) -> Iterator[House]:
    queue = f"of-{uuid4().hex[:8]}"  # one broker for the module, and jobs of this test's ledger only
    own = dataclasses.replace(settings, redis_url=rabbitmq.url, queue=queue)
    with house_of(own, tmp_path, concurrency=10, environment={"SUREFOOT_QUEUE": queue}) as made:
        yield made


def ask(house: House, action: str, **params: object) -> Job:
    return house.producer.enqueue(action, params, idempotency_key=str(uuid4()))


def calls(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def performed_once(house: House, tmp_path: Path, jobs: list[Job]) -> None:
    """Every job succeeded, and each line of their log is another one's."""
    for job in jobs:
        assert job.wait(SECONDS).state == "succeeded"
    began = [line.split()[0] for path in tmp_path.glob("count-*") for line in calls(path)]
    assert len(began) == len(jobs)
    assert house.worker.process.poll() is None


def counting(house: House, tmp_path: Path, name: str, jobs: int, gate: Path | None = None) -> list[Job]:
    told = {} if gate is None else {"gate": str(gate)}
    return [ask(house, "pool.count", log=str(tmp_path / f"count-{name}-{n}"), **told) for n in range(jobs)]


def is_rung_directly(house: House) -> bool:
    """Whether a job is performed without the relay having to ring for it."""
    before = len(house.worker.events("relay.rang"))
    ask(house, "test.add", a=1, b=1).get(SECONDS)
    return len(house.worker.events("relay.rang")) == before


# ---- Sentinels -------------------------------------------------------------------------------------------------


def test_behind_sentinels_jobs_are_rung_performed_and_waited_for(behind_sentinels: House) -> None:
    jobs = [ask(behind_sentinels, "test.add", a=n, b=1) for n in range(20)]
    assert [job.get(SECONDS)["total"] for job in jobs] == [n + 1 for n in range(20)]
    assert ask(behind_sentinels, "test.fail", times=1).get(SECONDS) == 2
    assert not behind_sentinels.worker.events("relay.rang")
    assert not behind_sentinels.worker.events("dependency.unshared")
    assert behind_sentinels.producer.breakers.list() is not None
    assert CeleryView(behind_sentinels.settings).pool()["max-async-jobs"] == 10


def test_a_master_that_is_killed_is_followed_and_every_job_is_performed_once(
    sentinels: Sentineled, behind_sentinels: House, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    running = counting(behind_sentinels, tmp_path, "before", 5, gate)
    until(lambda: all(job.refresh().state == "running" for job in running))
    sentinels.kill_master()
    accepted = counting(behind_sentinels, tmp_path, "without", 5)
    gate.touch()
    performed_once(behind_sentinels, tmp_path, [*running, *accepted])
    until(lambda: is_rung_directly(behind_sentinels))
    performed_once(behind_sentinels, tmp_path, [*running, *accepted, *counting(behind_sentinels, tmp_path, "after", 5)])


def test_check_says_what_it_finds_behind_sentinels(behind_sentinels: House) -> None:
    command = [str(Path(sys.executable).with_name("surefoot-worker")), "check"]
    environment = worker_environment(behind_sentinels.settings)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "valkey 9" in done.stdout
    assert "noeviction" in done.stdout


# ---- RabbitMQ --------------------------------------------------------------------------------------------------


def test_on_rabbitmq_jobs_are_rung_over_a_quorum_queue_and_performed(rabbitmq: Rabbit, on_rabbitmq: House) -> None:
    jobs = [ask(on_rabbitmq, "test.add", a=n, b=1) for n in range(20)]
    assert [job.get(SECONDS)["total"] for job in jobs] == [n + 1 for n in range(20)]
    assert ask(on_rabbitmq, "test.fail", times=1).get(SECONDS) == 2
    types = dict(line.split() for line in rabbitmq.control("list_queues", "name", "type").splitlines()[1:])
    assert types[on_rabbitmq.settings.queue] == "quorum"
    assert not on_rabbitmq.worker.events("relay.rang")


def test_a_queue_that_a_request_names_is_a_quorum_queue_too(rabbitmq: Rabbit, on_rabbitmq: House) -> None:
    on_rabbitmq.producer.enqueue("test.add", {"a": 1, "b": 1}, queue="of-a-request")
    until(lambda: "of-a-request\tquorum" in rabbitmq.control("list_queues", "name", "type"))


def test_a_rabbitmq_that_is_killed_and_comes_back_costs_nothing_and_repeats_nothing(
    rabbitmq: Rabbit, on_rabbitmq: House, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    ask(on_rabbitmq, "test.add", a=1, b=1).get(SECONDS)
    rabbitmq.restart()
    ask(on_rabbitmq, "test.add", a=1, b=1).get(SECONDS)
    running = counting(on_rabbitmq, tmp_path, "before", 5, gate)
    until(lambda: all(job.refresh().state == "running" for job in running))
    rabbitmq.kill()
    accepted = counting(on_rabbitmq, tmp_path, "without", 5)
    rabbitmq.start()
    gate.touch()
    performed_once(on_rabbitmq, tmp_path, [*running, *accepted])
    performed_once(on_rabbitmq, tmp_path, [*running, *accepted, *counting(on_rabbitmq, tmp_path, "after", 5)])


def test_what_a_killed_worker_had_taken_up_another_performs(
    rabbitmq: Rabbit, on_rabbitmq: House, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    jobs = counting(on_rabbitmq, tmp_path, "taken", 3, gate)
    until(lambda: all(job.refresh().state == "running" for job in jobs))
    on_rabbitmq.worker.kill()
    other = start_worker(
        on_rabbitmq.settings, tmp_path / "other.log", environment={"SUREFOOT_QUEUE": on_rabbitmq.settings.queue}
    )
    try:
        gate.touch()
        assert [job.wait(SECONDS).state for job in jobs] == ["succeeded"] * 3
        assert {job.refresh().record.attempt for job in jobs} == {2}
    finally:
        other.stop()
    assert rabbitmq.program.process is not None


@pytest.fixture(params=["redis", "rabbitmq"])
def broker_house(request: pytest.FixtureRequest) -> House:
    """A worker on either broker."""
    made: House = request.getfixturevalue({"redis": "own_asyncio", "rabbitmq": "on_rabbitmq"}[request.param])
    return made


@pytest.fixture
def own_asyncio(settings: Settings, tmp_path: Path) -> Iterator[House]:
    with house_of(settings, tmp_path) as made:
        yield made


class Bomb:
    """What would leave a file behind if anybody unpickled it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickled_message_is_refused_and_never_unpickled(broker_house: House, tmp_path: Path) -> None:
    url, queue = broker_house.settings.redis_url, broker_house.settings.queue
    with (
        Connection(celery_url(url), transport_options=transport_options(url, 3.0)) as connection,
        connection.Producer(serializer="pickle") as sender,
    ):
        sender.publish(
            ([Bomb(tmp_path / "boom")], {}, {}),
            exchange="",
            routing_key=queue,
            headers={"lang": "py", "task": "test.add", "id": str(uuid4())},
        )
    (refused,) = until(lambda: broker_house.worker.events("ring.undecodable"))
    assert refused["content_type"] == "application/x-python-serialize"
    assert not (tmp_path / "boom").exists()
    assert ask(broker_house, "test.add", a=1, b=1).get(SECONDS) == {"total": 2}
