"""The faults of a storm, on real servers: none of them has bitten where there is nobody to feel it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from producer import Producer, Settings
from producer.ledger.engine import open_engine
from tasks import load
from tests.chaos.collect import redis_left
from tests.chaos.evidence import Call
from tests.chaos.evidence_folder import LINES, Appender
from tests.chaos.processes import Member
from tests.chaos.storm import schedule
from tests.chaos.storm.crew import Place
from tests.chaos.storm.faults import FAULTS, postgres_locks, processes, producers, redis, rings, world
from tests.chaos.storm.faults.producers import unanswered
from tests.chaos.storm.faults.unread import unread_bytes
from tests.chaos.storm.gather import rings_over
from tests.chaos.storm.kinds import KINDS
from tests.chaos.storm.notes import Notes, Strike
from tests.chaos.storm.run import Storm, is_at_rest
from tests.chaos.storm.schedule import Planned
from tests.chaos.storm.sizes import SIZES
from tests.chaos.storm.stage import Stage, staged
from tests.houses import ACTION_MODULES, ROOT, until
from worker.dev.servers import Valkey
from worker.lifecycle import publish
from worker.limits_in_redis import KEYS, keys_of

NOBODY_COMES = {
    postgres_locks: ("BUSY_SECONDS", "TRY_SECONDS"),
    processes: ("BUSY_SECONDS",),
    producers: ("ASKS_SECONDS", "THERE_SECONDS"),
    rings: ("TAKEN_SECONDS",),
    world: ("BUSY_SECONDS", "MET_SECONDS"),
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Servers, links and the world outside, and nobody who asks or works."""
    home = tmp_path_factory.mktemp("storm")
    with staged(home, SIZES["smoke"], seed=1) as stage:
        yield stage


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody wait for long for what does not come."""
    for module, names in NOBODY_COMES.items():
        for name in names:
            monkeypatch.setattr(module, name, 0.05)


def strike(stage: Stage, kind: str, *, seconds: float = 0.05) -> Strike:
    return Strike(Planned(number=1, at=0.0, kind=kind, lane=KINDS[kind].lane, seconds=seconds, choice=0.5), stage.notes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_that_nobody_is_there_to_feel_has_not_bitten_and_leaves_the_servers_as_they_were(
    stage: Stage, kind: str
) -> None:
    with stage.redis() as client:
        client.flushall()
    assert not FAULTS[kind](stage, strike(stage, kind))
    assert stage.ask("SELECT 1 AS found") == [{"found": 1}]
    with stage.redis() as client:
        client.set("written", "again")


@pytest.mark.parametrize(
    ("held", "minutes", "strikes"), [(False, 1.0, 1 + schedule.AGAIN), (True, 1.0, 1), (False, 0.5, 1)]
)
def test_a_kind_that_was_felt_too_seldom_comes_again_for_as_long_as_it_is_so_and_there_is_time(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, held: bool, minutes: float, strikes: int
) -> None:
    monkeypatch.setattr(schedule, "GAP_SECONDS", 0.01)
    planned = [strike(stage, "redis_flush").planned]
    stage = replace(stage, folder=tmp_path, notes=Notes(tmp_path))
    with stage.redis() as client:
        client.flushall()
        if held:
            client.set("held", "something")
    size = replace(SIZES["smoke"], minutes=minutes)
    storm = Storm(tmp_path, size, 1, planned, {"redis_flush": 1}, thorough=False, say=print)
    storm._strike_all(stage, time.time())  # noqa: SLF001
    found = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert [each["bit"] for each in found if each["phase"] == "end"] == [held] * strikes


@pytest.mark.parametrize("kind", ["postgres_kill", "redis_kill"])
def test_a_server_is_brought_back_whose_fault_went_wrong_in_its_midst(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def goes_wrong(stage: Stage, strike: Strike) -> bool | None:
        strike.on("a server")
        (stage.postgres if kind == "postgres_kill" else stage.valkey).kill()
        raise OSError("in its midst")

    monkeypatch.setitem(FAULTS, kind, goes_wrong)
    stage = replace(stage, folder=tmp_path, notes=Notes(tmp_path))
    planned = strike(stage, kind).planned
    storm = Storm(tmp_path, SIZES["smoke"], 1, [planned], {}, thorough=False, say=print)
    assert not storm._strike(stage, time.time(), planned)  # noqa: SLF001
    assert stage.ask("SELECT 1 AS found") == [{"found": 1}]
    with stage.redis() as client:
        assert client.ping()
    assert "in its midst" in (tmp_path / "oddities.jsonl").read_text()


def test_rings_that_are_left_for_jobs_that_are_over_are_told_from_others(stage: Stage) -> None:
    engine = open_engine(stage.postgres.url, connections=1, name="tests")
    with engine.connect() as connection:
        publish(connection, list(load(ACTION_MODULES).values()))
    engine.dispose()
    with stage.redis() as client:
        client.flushall()
        client.lpush("actions", "no ring")
    producer = Producer(Settings(database_url=stage.postgres.url, redis_url=stage.valkey.url))
    over, waiting = (producer.enqueue("test.add", {"a": n, "b": 2}, idempotency_key=f"left-{n}") for n in range(2))
    assert producer.flush(10)
    producer.cancel(over.id, reason="nobody wants it")
    with stage.redis() as client:
        left = redis_left(client, partial(rings_over, stage))
        assert (sum(left.queues.values()), sum(left.over.values())) == (3, 1)
        producer.cancel(waiting.id, reason="nor that")
        assert sum(redis_left(client, partial(rings_over, stage)).over.values()) == 2
    producer.close()


def test_rings_that_redis_does_not_take_are_rung_again_once_it_is_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rings, "TAKEN_SECONDS", 20.0)
    engine = open_engine(stage.postgres.url, connections=1, name="tests")
    with engine.connect() as connection:
        publish(connection, list(load(ACTION_MODULES).values()))
    engine.dispose()
    producer = Producer(Settings(database_url=stage.postgres.url, redis_url=stage.valkey.url))
    job = producer.enqueue("test.add", {"a": 1, "b": 2})
    assert producer.flush(10)
    with stage.redis() as client:
        client.flushall()
    twice = strike(stage, "rings_twice")
    stage.valkey.kill()
    with ThreadPoolExecutor(1) as threads:
        try:
            struck = threads.submit(FAULTS["rings_twice"], stage, twice)
            until(lambda: twice.target)
        finally:
            stage.valkey.start()
        with stage.redis() as client:
            until(lambda: sum(map(client.llen, client.scan_iter("actions*", _type="list"))) == rings.TIMES)
            client.flushall()  # as a worker would take them
        assert struck.result() is True
    producer.cancel(job.id, reason="over")
    producer.close()


def test_an_older_copy_of_redis_has_bitten_where_it_holds_something_else(stage: Stage) -> None:
    redis.keep_copy(stage)
    with stage.redis() as client:
        client.lpush("actions", "what came since")
    assert FAULTS["redis_old_dump"](stage, strike(stage, "redis_old_dump")) is True


@pytest.mark.parametrize("asks", [True, False])
def test_a_link_half_open_has_bitten_where_somebody_asks_over_it(stage: Stage, *, asks: bool) -> None:
    link = stage.links["redis"]
    before = link.order("look")["halved"]
    half = strike(stage, "redis_link_half", seconds=5.0 if asks else 1.0)
    with socket.create_connection(("127.0.0.1", link.port)) as client, ThreadPoolExecutor(1) as threads:
        until(lambda: link.order("look")["open"] == 1)
        struck = threads.submit(FAULTS[half.planned.kind], stage, half)
        until(lambda: link.order("look")["halved"] > before)
        if asks:
            client.sendall(b"PING\r\n")
        assert struck.result() is asks


def test_bytes_that_a_stopped_server_has_not_read_are_counted_at_its_port(own_valkey: Valkey) -> None:
    server = psutil.Process(own_valkey.pid)
    with socket.create_connection(("127.0.0.1", own_valkey.port)) as client:
        client.sendall(b"PING\r\n")
        assert client.recv(100).startswith(b"-NOAUTH")  # so it is accepted: one that is not would count, too
        server.suspend()
        try:
            client.sendall(b"PING\r\n")
            assert until(lambda: unread_bytes(own_valkey.port)) == 6
        finally:
            server.resume()
        until(lambda: unread_bytes(own_valkey.port) == 0)


def test_it_is_no_rest_while_a_ring_lies_in_a_queue_or_somebody_stands_in_line(stage: Stage) -> None:
    with stage.redis() as client:
        client.flushall()
        assert is_at_rest(stage)
        client.lpush("actions", "a ring")
        assert not is_at_rest(stage)
        client.flushall()
        client.zadd(keys_of("storm.narrow")[KEYS.index("line")], {"a job": 1})
        assert not is_at_rest(stage)


ASKS = """
import sys, time
from dataclasses import replace
from pathlib import Path
from tests.chaos.evidence import Call
from tests.chaos.evidence_folder import Appender
nothing = dict(job_id=None, outcome=None, fingerprint=None, error=None)
asked = Call(at=1.0, process="producer-1.1", op="invoke", call=0, action="storm.pure", key="k", **nothing)
history = Appender(Path(sys.argv[1]), Call)
for n in range(100_000):
    history.add(replace(asked, call=n))
    time.sleep(0.003)
    history.add(replace(asked, call=n, op="ok"))
    time.sleep(0.05)
"""


@pytest.mark.parametrize("kind", ["stop_producer", "kill_producer"])
def test_a_producer_is_stopped_or_killed_in_the_midst_of_a_request_though_it_hardly_ever_is(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(producers, "ASKS_SECONDS", 20.0)
    process = subprocess.Popen([sys.executable, "-c", ASKS, str(tmp_path)], cwd=ROOT, start_new_session=True)
    member = Member("producer-1.1", process, tmp_path / "log")
    crew = replace(stage.crew, places=[Place("producer-1", "producer", member=member)])
    try:
        until((tmp_path / LINES[Call]).exists)
        assert FAULTS[kind](replace(stage, folder=tmp_path, crew=crew), strike(stage, kind)) is True
        assert member.lives is (kind == "stop_producer")
    finally:
        process.kill()
        process.wait()


def test_what_was_asked_and_not_answered_is_told_by_who_asked(tmp_path: Path) -> None:
    asked = Call(
        at=1.0,
        process="producer-1.1",
        op="invoke",
        call=1,
        action="storm.pure",
        key="k",
        job_id=None,
        outcome=None,
        fingerprint=None,
        error=None,
    )
    with Appender(tmp_path, Call) as history:
        history.add(*(replace(asked, process="producer-2.1", call=n) for n in range(500)))  # more than is looked at
        history.add(asked, replace(asked, call=2), replace(asked, op="ok", job_id=str(uuid4()), outcome="created"))
    assert unanswered(tmp_path, ["producer-1.1"]) == {("producer-1.1", 2)}
    assert unanswered(tmp_path, ["producer-3.1"]) == set()
