"""What nobody should send, sent over HTTP: refused in words, and nothing of it reaches the ledger or Redis.

No worker runs here, so that whatever changes is the API's doing.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
import redis
from sqlalchemy import Engine, text

from producer import Producer, Settings
from producer.api.app import create_app
from producer.api.settings import ApiSettings
from producer.ledger.engine import open_engine
from tasks import load
from tests.acceptance.asking import ADD, enqueue, problem
from tests.api_process import Api, api_of, bearer
from tests.houses import ACTION_MODULES
from worker.lifecycle import publish

NOBODY = "01890000-0000-7000-8000-000000000000"
JSON = {"Content-Type": "application/json"}
DOCUMENT = create_app(
    ApiSettings(database_url="postgresql://nobody@nowhere/none", redis_url="redis://nowhere")
).openapi()
# Wherever a body goes.
PATHS = tuple(
    re.sub(r"\{\w+\}", NOBODY, path)
    for path, methods in DOCUMENT["paths"].items()
    if "requestBody" in methods.get("post", {})
)
TABLES = ("jobs", "decisions", "events", "schedules", "approvals", "budgets", "roles", "api_keys", "acts")
NO_JSON = {
    "a null character in a value": b'{"action": "test.echo", "params": {"value": "\\u0000"}}',
    "a null character in a name": b'{"action": "test.echo", "params": {"value": {"\\u0000": 1}}}',
    "a raw null character": b'{"action": "test.echo\x00"}',
    "half a surrogate": b'{"action": "test.echo", "params": {"value": "\\ud800"}}',
    "half a surrogate as a name": b'{"action": "test.echo", "params": {"value": {"\\udc00": 1}}}',
    "NaN": b'{"action": "test.echo", "params": {"value": NaN}}',
    "Infinity": b'{"action": "test.echo", "params": {"value": -Infinity}}',
    "a number beyond all": b'{"action": "test.echo", "params": {"value": 1e400}}',
    "an integer of 20,000 digits": b'{"action": "test.echo", "params": {"value": ' + b"9" * 20_000 + b"}}",
    "5,000 lists within one another": b'{"params": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "100,000 of them that do not end": b"[" * 100_000,
    "100,000 objects within one another": b'{"a":' * 100_000,
    "a name twice": b'{"action": "test.add", "action": "test.fail"}',
    "a name twice, deep within": b'{"action": "test.echo", "params": {"value": {"a": 1, "\\u0061": 2}}}',
    "no UTF-8": b'{"action": "\xff\xfe"}',
    "UTF-16": '{"action": "test.add"}'.encode("utf-16"),
    "an overlong character": b'{"action": "\xc0\xaf"}',
    "half of it": b'{"action": "test.add", "par',
    "more than one": b'{"action": "test.add"} {}',
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a text": b'"test.add"',
    "packed": gzip.compress(json.dumps(ADD).encode()),
    "a form": b"action=test.add&params=",
}


@pytest.fixture(scope="module")
def engine(module_settings: Settings) -> Iterator[Engine]:
    made = open_engine(module_settings.database_url, connections=1, name="tests")
    with made.connect() as connection:
        publish(connection, list(load(ACTION_MODULES).values()))
    yield made
    made.dispose()


@pytest.fixture(scope="module")
def api(module_settings: Settings, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    del engine  # which has published the actions
    with api_of(module_settings, tmp_path_factory.mktemp("api")) as made:
        yield made


@pytest.fixture(scope="module")
def key(module_settings: Settings) -> str:
    producer = Producer(module_settings)
    _, key = producer.keys.create("service", ["admin"], who="tests", rate_per_second=10_000)
    producer.close()
    return key


@pytest.fixture(scope="module")
def client(api: Api, key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api.url, headers=bearer(key), timeout=30) as made:
        yield made


@pytest.fixture
def untouched(module_settings: Settings, engine: Engine) -> Iterator[None]:
    """Holds that the test leaves the ledger as it was, and Redis without a word of it."""

    def there() -> tuple[int, int]:
        counted = " + ".join(f"(SELECT count(*) FROM {table})" for table in TABLES)
        with engine.connect() as connection, redis.Redis.from_url(module_settings.redis_url) as broker:
            return connection.execute(text(f"SELECT {counted}")).scalar_one(), broker.dbsize()

    before = there()
    yield
    assert there() == before


def headers() -> dict[str, str]:
    return JSON | {"Idempotency-Key": str(uuid4())}


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in NO_JSON.items()])
def test_what_is_no_json_is_refused_wherever_a_body_goes(client: httpx.Client, content: bytes) -> None:
    assert len(PATHS) > 15
    for path in PATHS:
        assert problem(client.post(path, content=content, headers=headers())) == (400, "invalid-request"), path


@pytest.mark.usefixtures("untouched")
def test_a_body_beyond_the_limit_is_refused_before_it_is_read_whether_it_says_so_or_not(client: httpx.Client) -> None:
    much = b" " * (4 * 1024 * 1024 + 1)
    assert problem(client.post("/v1/jobs", content=much, headers=headers())) == (413, "too-large")
    streamed = client.post("/v1/jobs", content=iter([much[:1_000_000]] * 5), headers=headers())
    assert problem(streamed) == (413, "too-large")


@pytest.mark.usefixtures("untouched")
def test_a_bomb_is_not_unpacked(client: httpx.Client) -> None:
    bomb = gzip.compress(b" " * 100_000_000)
    answer = client.post("/v1/jobs", content=bomb, headers=headers() | {"Content-Encoding": "gzip"})
    assert problem(answer) == (400, "invalid-request")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(b"X-Much: " + b"x" * 100_000, id="headers without end"),
        pytest.param(b"Content-Length: 10\r\nContent-Length: 20", id="two lengths"),
        pytest.param(b"Content-Length: -1", id="a length below nothing"),
        pytest.param(b"Content-Length: ten", id="a length that is none"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}", id="a chunk that lies about its length"),
        pytest.param(b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="an encoding that nobody speaks"),
        pytest.param(b"Idempotency-Key: a\x00b", id="a null character in a header"),
        pytest.param(b"no header at all", id="a line that is no header"),
    ],
)
def test_what_is_no_http_is_hung_up_on_with_a_4xx(api: Api, key: str, lines: bytes) -> None:
    address = urlsplit(api.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=30) as line:
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        line.sendall(head.encode() + lines + b"\r\n\r\n")
        answer = line.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 4")


@pytest.mark.usefixtures("untouched")
def test_a_body_that_is_not_said_to_be_json_is_415(client: httpx.Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        sent = {"Content-Type": kind, "Idempotency-Key": "k"}
        assert problem(client.post("/v1/jobs", content=json.dumps(ADD), headers=sent)) == (415, "not-json")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"x" * 256, id="256 characters"),
        pytest.param(b"a b", id="a space"),
        pytest.param(b"a\tb", id="a tab"),
        pytest.param(b'"open', id="a quote that does not close"),
        pytest.param(b'"a\\b"', id="an escape that is none"),
        pytest.param("ключ".encode(), id="letters beyond ASCII"),
        pytest.param("pay\u202eruoy".encode(), id="text that turns around"),
        pytest.param(b"\x1b[2Jx", id="what repaints a terminal"),
        pytest.param(b"\xff", id="a byte that is no text"),
    ],
)
def test_a_key_that_is_none_is_refused(client: httpx.Client, name: bytes) -> None:
    answer = client.post("/v1/jobs", json=ADD, headers=[(b"Idempotency-Key", name)])
    assert problem(answer) == (400, "invalid-request")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "name", ["", "x" * 256, "a b", "a\nb", "a\r\nX: y", "ключ", "\u0440ay", "pay\u202eruoy", "\x1b[2Jx"]
)
def test_a_key_that_is_none_is_refused_in_a_batch_too_and_nothing_of_the_batch_is_accepted(
    client: httpx.Client, name: str
) -> None:
    fine = ADD | {"idempotency_key": str(uuid4())}
    refused = client.post("/v1/batches", json={"requests": [fine, ADD | {"idempotency_key": name}]})
    assert problem(refused) == (400, "invalid-request")
    assert refused.json()["index"] == 1


def test_keys_differ_by_case(client: httpx.Client) -> None:
    first, second = enqueue(client, key="Invoice-7"), enqueue(client, key="invoice-7")
    assert first.json()["job"]["id"] != second.json()["job"]["id"]


def test_a_number_written_otherwise_is_the_same_request(client: httpx.Client) -> None:
    head = headers()

    def asked(number: bytes) -> httpx.Response:
        content = b'{"action": "test.echo", "params": {"value": ' + number + b"}}"
        return client.post("/v1/jobs", content=content, headers=head)

    first = asked(b"1.0").json()["job"]["id"]
    for again in (b"1.00", b"1e0", b"1", b"10E-1"):
        said = asked(again).json()
        assert (said["outcome"], said["job"]["id"]) == ("replayed", first)


@pytest.mark.parametrize(
    "words",
    [
        "'; DROP TABLE jobs; --",
        "%s %(tenant)s {0} {tenant} :tenant",
        "${jndi:ldap://127.0.0.1/x}",
        "{{ 7 * 7 }}{% include '/etc/passwd' %}",
        "a\r\nSet-Cookie: x=y\r\n\r\n<html>",
        "\x1b[2J\x1b]0;owned\x07",
        "line\u2028and\u2029paragraph",
        "gnp.exe\u202egpj",
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "\U0001f469\u200d\U0001f4bb e\u0301 \uffff",
    ],
)
def test_words_that_mean_something_elsewhere_are_words_and_come_back_as_they_were(
    client: httpx.Client, api: Api, words: str
) -> None:
    body = {"action": "test.echo", "params": {"value": {words: words}}, "reasoning": words, "input": [words]}
    made = enqueue(client, body)
    assert made.status_code == 202
    job = client.get(made.headers["location"]).json()
    assert job["params"] == body["params"]
    assert (job["reasoning"], job["input"]) == (words, [words])
    cancelled = client.post(f"{made.headers['location']}/cancel", json={"reason": words})
    assert cancelled.json()["answer"] == "cancelled"
    written = api.log.read_text()
    assert all(line.startswith("{") and json.loads(line) for line in written.splitlines())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u2028\u202e]", written)


SECRETS = {
    "stripe": "sk_live_" + "a1B2" * 6,
    "amazon": "AKIA" + "Q7" * 8,
    "token": "eyJ" + "hbGciOi" * 2 + "." + "eyJzdWIi" * 2 + ".c2ln",
    "private": "-----BEGIN PRIVATE KEY-----\nMIIEvQ" + "x9" * 20 + "\n-----END PRIVATE KEY-----",
    "card": "4242424242424242",
}


def test_secrets_in_what_is_asked_for_are_in_no_log_and_not_in_redis(
    client: httpx.Client, api: Api, module_settings: Settings
) -> None:
    body = {"action": "test.echo", "params": {"value": SECRETS}, "reasoning": json.dumps(SECRETS), "input": SECRETS}
    assert enqueue(client, body).status_code == 202
    refused = enqueue(client, body | {"action": "test.ech"})
    assert problem(refused) == (400, "unknown-action")
    wrong = enqueue(client, {"action": "test.add", "params": {"a": SECRETS, "b": list(SECRETS.values())}})
    assert problem(wrong) == (400, "invalid-request")
    seen = api.log.read_text() + refused.text + wrong.text + everything_in(module_settings.redis_url)
    assert [name for name, secret in SECRETS.items() if max(secret.splitlines(), key=len) in seen] == []


def everything_in(redis_url: str) -> str:
    """All names and values that Redis has, whatever their kind."""
    with redis.Redis.from_url(redis_url) as broker:
        names = list(broker.scan_iter())
        return "".join(f"{name!r}{broker.dump(name)!r}" for name in names)


@pytest.mark.usefixtures("untouched")
def test_a_key_in_the_query_is_no_key_and_is_in_no_log(api: Api, key: str) -> None:
    assert problem(api.client.get("/v1/jobs", params={"key": key, "access_token": key})) == (401, "unauthenticated")
    assert key not in api.log.read_text()


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/not-an-id",
        "/v1/jobs/..%2f..%2fetc%2fpasswd",
        "/v1/jobs/%00",
        "/v1/jobs?limit=0",
        "/v1/jobs?limit=99999999999999999999",
        "/v1/jobs?state=lost",
        "/v1/jobs?action=%00",
        "/v1/jobs?cursor=1",
        "/v1/jobs/by-key?action=%ff&idempotency_key=k",
        "/v1/jobs/by-key?action=test.add&idempotency_key=%00",
        "/v1/requests/%00/chain",
        f"/v1/requests/{'x' * 5_000}/chain",
        "/v1/conversations/%00",
        "/v1/schedules/%00",
        f"/v1/jobs/{NOBODY}?wait=NaN",
        f"/v1/jobs/{NOBODY}?wait=-1",
        f"/v1/jobs/{NOBODY}?wait=1e999",
        "/v1/acts?who=%00",
        "/v1/acts?act=%00",
        "/v1/acts?cursor=0",
        "/v1/acts?cursor=99999999999999999999",
        "/v1/acts?since=yesterday",
        "/v1/acts?since=0001-01-01T00:00:00%2B01:00",
        "/v1/actions/%00",
        "/v1/budgets/%00",
        "/v1/budget-shares?name=%00",
        "/v1/breakers/history?name=%00",
        "/v1/approvals?action=%00",
        "/v1/approvals/%00",
        "/v1/roles/%00",
    ],
)
def test_addresses_that_mean_nothing_are_4xx(client: httpx.Client, path: str) -> None:
    status, _ = problem(client.get(path))
    assert status in (400, 404)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/schedules/x/pause?reason=%00"),
        ("POST", "/v1/schedules/x/resume?reason=%00"),
        ("DELETE", "/v1/schedules/x?reason=%00"),
        ("DELETE", "/v1/budgets/x?reason=%00"),
        ("POST", "/v1/keys/%00/revoke"),
    ],
)
def test_addresses_by_which_something_is_done_are_4xx_too(client: httpx.Client, method: str, path: str) -> None:
    status, _ = problem(client.request(method, path, json={} if "keys" in path else None))
    assert status in (400, 404)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"action": "x" * 256}, id="a long action"),
        pytest.param({"action": "test.add\u202e"}, id="an action that turns around"),
        pytest.param(ADD | {"request_id": "x" * 300}, id="a long request"),
        pytest.param(ADD | {"request_id": ""}, id="an empty request"),
        pytest.param(ADD | {"user_id": "a\nb"}, id="a user of two lines"),
        pytest.param(ADD | {"reasoning": "x" * 70_000_00}, id="more reasoning than there is room for"),
        pytest.param(ADD | {"run_at": "9999-12-31T23:59:59Z", "deadline": "0001-01-01T00:00:00Z"}, id="odd moments"),
        pytest.param(ADD | {"queue": "x" * 300}, id="a long queue"),
        pytest.param({"action": "test.add", "params": [1, 2]}, id="params without names"),
        pytest.param({"action": "test.add", "params": {"a": 2**63, "b": 1}}, id="an integer beyond 64 bits"),
    ],
)
def test_fields_that_cannot_be_are_refused(client: httpx.Client, body: dict[str, Any]) -> None:
    status, _ = problem(enqueue(client, body))
    assert status in (400, 413)
