"""The HTTP API while its servers are away, and while its callers misbehave."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from producer import Producer, Settings
from producer.ledger.engine import open_engine
from producer.ledger.migrate import migrate
from tasks import load
from tests.api_process import Api, api_of, bearer
from tests.houses import ACTION_MODULES, until
from worker.dev.servers import Postgres, Valkey
from worker.lifecycle import publish

ADD = {"action": "test.add", "params": {"a": 1, "b": 2}}
LATER = ADD | {"run_at": "2099-01-01T00:00:00Z"}


@pytest.fixture
def postgres(folder: Path) -> Iterator[Postgres]:
    with Postgres(folder) as server:
        yield server


@pytest.fixture
def settings(postgres: Postgres, own_valkey: Valkey) -> Settings:
    engine = open_engine(postgres.url, connections=1, name="tests")
    migrate(engine)
    with engine.connect() as connection:
        publish(connection, list(load(ACTION_MODULES).values()))
    engine.dispose()
    return Settings(database_url=postgres.url, redis_url=own_valkey.url)


@pytest.fixture
def key(settings: Settings) -> str:
    producer = Producer(settings)
    _, key = producer.keys.create("service", ["enqueue", "read", "operate"], who="tests", rate_per_second=10_000)
    producer.close()
    return key


@pytest.fixture
def api(settings: Settings, tmp_path: Path) -> Iterator[Api]:
    with api_of(settings, tmp_path, {"SUREFOOT_API_BODY_SECONDS": "3"}) as made:
        yield made


def enqueue(api: Api, key: str) -> httpx.Response:
    return api.client.post("/v1/jobs", json=ADD, headers=bearer(key) | {"Idempotency-Key": str(uuid4())})


def connected(api: Api) -> socket.socket:
    address = urlsplit(api.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=30)


def waiting_for(job: str, key: str, *, seconds: int = 30) -> bytes:
    """A request that waits for a job, and the server hangs up after it."""
    headers = f"Host: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
    return f"GET /v1/jobs/{job}?wait={seconds} HTTP/1.1\r\n{headers}\r\n".encode()


def test_without_redis_jobs_are_accepted_all_the_same(api: Api, key: str, own_valkey: Valkey) -> None:
    own_valkey.kill()
    accepted = enqueue(api, key)
    assert accepted.status_code == 202
    assert api.client.get(accepted.headers["location"], headers=bearer(key)).json()["state"] == "queued"
    assert api.client.get("/readyz").json() == {"status": "ready", "ledger": "ok", "broker": "away"}


def test_without_postgres_nothing_is_said_to_be_accepted_and_all_is_well_once_it_is_back(
    api: Api, key: str, postgres: Postgres
) -> None:
    assert enqueue(api, key).status_code == 202
    postgres.stop()
    refused = enqueue(api, key)
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/ledger-unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert str(postgres.port) not in refused.text  # where the ledger is, is nobody's to know
    ready = api.client.get("/readyz")
    assert (ready.status_code, ready.json()["ledger"]) == (503, "away")
    assert api.client.get("/livez").status_code == 200
    postgres.start()
    until(lambda: api.client.get("/readyz").status_code == 200)
    assert enqueue(api, key).status_code == 202


@pytest.fixture
def browser(api: Api, settings: Settings) -> Iterator[httpx.Client]:
    """Somebody in the console who may do everything."""
    producer = Producer(settings)
    _, key = producer.keys.create("ada", ["admin"], who="tests", rate_per_second=10_000)
    producer.close()
    with httpx.Client(base_url=api.url, timeout=30, headers={"Sec-Fetch-Site": "same-origin"}) as made:
        assert made.post("/console/sign-in", data={"key": key}).status_code == 303
        yield made


def test_without_postgres_every_page_says_what_is_wrong_and_comes_again_by_itself(
    browser: httpx.Client, api: Api, postgres: Postgres
) -> None:
    token = re.search(r'name="form_token" value="(\w+)"', browser.get("/console").text)
    assert token is not None
    postgres.stop()
    for path in ("", "/jobs", "/approvals", "/schedules", "/actions", "/budgets", "/acts", "/keys", f"/jobs/{uuid4()}"):
        shown = browser.get(f"/console{path}")
        assert (shown.status_code, shown.headers["content-type"]) == (503, "text/html; charset=utf-8"), path
        assert int(shown.headers["retry-after"]) > 0
        assert "The ledger cannot be reached" in shown.text
        assert '<meta http-equiv="refresh"' in shown.text
        assert str(postgres.port) not in shown.text
    for path in ("/console/keys/create", f"/console/jobs/{uuid4()}/cancel", "/console/sign-in"):
        sent = browser.post(path, data={"form_token": token[1], "key": "sf_" + "a" * 12 + "_" + "b" * 43})
        assert (sent.status_code, "Nothing was done." in sent.text) == (503, True)
        assert "http-equiv" not in sent.text  # a browser would not send it anew, and ask for something else
    postgres.start()
    until(lambda: browser.get("/console").status_code == 200)
    assert api.events("api.failed") == []


def test_without_redis_the_console_says_so_where_it_matters_and_goes_on(
    browser: httpx.Client, api: Api, key: str, own_valkey: Valkey
) -> None:
    job = enqueue(api, key).json()["job"]["id"]
    own_valkey.kill()
    overview = browser.get("/console")
    assert (overview.status_code, "Redis cannot be asked" in overview.text) == (200, True)
    assert "Nothing needs you" not in overview.text
    breakers = browser.get("/console/breakers")
    assert (breakers.status_code, "Redis cannot be asked" in breakers.text) == (503, True)
    for path in (f"/jobs/{job}", "/jobs", "/approvals", "/schedules", "/actions", "/budgets", "/acts", "/keys"):
        assert browser.get(f"/console{path}").status_code == 200, path


def test_five_hundred_slow_callers_keep_nobody_waiting_and_are_hung_up_on(api: Api, key: str) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(api)) for _ in range(500)]
        for number, line in enumerate(slow):  # half of them send no whole header, the others no whole body
            line.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\n")
            if number % 2:
                line.sendall(b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
        assert {enqueue(api, key).status_code for _ in range(20)} == {202}
        answers = [line.recv(4_096) for line in slow]
    assert {answer[:12] for answer in answers[1::2]} == {b"HTTP/1.1 408"}
    assert set(answers[::2]) == {b""}


def test_hundreds_who_wait_for_jobs_keep_nobody_waiting(api: Api, key: str) -> None:
    headers = bearer(key) | {"Idempotency-Key": str(uuid4())}
    job = api.client.post("/v1/jobs", json=LATER, headers=headers).json()["job"]["id"]
    wait = waiting_for(job, key)
    with ExitStack() as stack:
        waiting = [stack.enter_context(connected(api)) for _ in range(200)]
        for line in waiting:
            line.sendall(wait)
        assert enqueue(api, key).status_code == 202
        cancelled = api.client.post(f"/v1/jobs/{job}/cancel", json={}, headers=bearer(key))
        assert cancelled.json()["answer"] == "cancelled"
        answers = [line.makefile("rb").read() for line in waiting]
    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 200"}
    assert all(b'"state":"cancelled"' in answer for answer in answers)


def test_a_caller_who_goes_away_costs_nothing_more(api: Api, key: str) -> None:
    for _ in range(20):
        with connected(api) as line:
            line.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
    assert enqueue(api, key).status_code == 202
    assert api.events("api.failed") == []


def test_told_to_stop_it_answers_those_who_wait_and_exits_well(api: Api, key: str) -> None:
    headers = bearer(key) | {"Idempotency-Key": str(uuid4())}
    job = api.client.post("/v1/jobs", json=LATER, headers=headers).json()["job"]["id"]
    with connected(api) as line:
        line.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in line.recv(4_096)  # once it is answered, it is nobody's whom the server has not let in yet
        line.sendall(waiting_for(job, key, seconds=60))
        assert api.client.get("/livez").status_code == 200  # what came before it has arrived, too
        api.process.send_signal(signal.SIGTERM)
        answer = line.makefile("rb").read()
    assert b'"state":"queued"' in answer
    assert api.process.wait(15) == 0


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        pytest.param(
            {"SUREFOOT_API_KEYS": "none-on-loopback", "SUREFOOT_API_HOST": "0.0.0.0"},  # noqa: S104  to be refused
            "is reached from outside",
            id="open to the world by mistake",
        ),
        pytest.param({"SUREFOOT_API_KEYS": "no"}, "is none of required", id="unknown word"),
        pytest.param({"SUREFOOT_API_BODY_BYTES": "0"}, "must be more than 0", id="no bytes"),
    ],
)
def test_it_does_not_start_where_a_setting_would_let_in_whom_nobody_meant_to(
    settings: Settings, tmp_path: Path, environment: dict[str, str], problem: str
) -> None:
    with pytest.raises(AssertionError, match=problem), api_of(settings, tmp_path, environment):
        pass


def test_without_keys_whoever_reaches_it_on_loopback_may_act_and_the_log_says_so(
    settings: Settings, tmp_path: Path
) -> None:
    with api_of(settings, tmp_path, {"SUREFOOT_API_KEYS": "none-on-loopback"}) as api:
        assert api.client.post("/v1/jobs", json=ADD, headers={"Idempotency-Key": "k"}).status_code == 202
        assert api.events("api.open")
        rebound = api.client.get("/v1/jobs", headers={"Host": "rebound.example"})  # somebody's page, by his own name
        assert (rebound.status_code, api.client.get("/v1/jobs").status_code) == (403, 200)
