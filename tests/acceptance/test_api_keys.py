"""Keys over HTTP: who has `admin` makes, lists and ends those of his tenant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from producer import HttpProducer
from producer.errors import AccessRefused, InvalidRequest, KeyNotFound
from tests.acceptance.asking import problem
from tests.api_process import Api, bearer
from tests.houses import House, until


@pytest.fixture(scope="module")
def admin_key(house: House) -> str:
    _, key = house.producer.keys.create("ops", ["admin"], who="tests", rate_per_second=10_000)
    return key


@pytest.fixture(scope="module")
def ops(api: Api, admin_key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api.url, headers=bearer(admin_key), timeout=30) as made:
        yield made


def test_a_key_is_made_shown_once_and_says_by_whose_word_it_was(api: Api, ops: httpx.Client, house: House) -> None:
    asked = {"name": "billing", "scopes": ["read", "enqueue"], "seconds": 3_600, "reason": "ticket 7"}
    made = ops.post("/v1/keys", json=asked)
    key, record = made.json()["key"], made.json()["record"]
    assert (made.status_code, record["scopes"], record["standing"]) == (201, ["enqueue", "read"], "active")
    assert record["created_by"].startswith("ops (key ")
    assert api.client.get("/v1/actions", headers=bearer(key)).status_code == 200
    assert record in ops.get("/v1/keys").json()["keys"]
    assert key.rpartition("_")[2] not in ops.get("/v1/keys").text + api.log.read_text()
    (act, *_) = house.producer.acts(act="create key")
    assert (act.target, act.who, act.reason) == (record["id"], record["created_by"], "ticket 7")
    assert act.via.startswith("api key ")
    assert act.via.endswith(" from 127.0.0.1")


def test_a_key_is_ended_at_once_or_after_an_overlap(api: Api, ops: httpx.Client) -> None:
    made = ops.post("/v1/keys", json={"name": "leaver", "scopes": ["read"]}).json()
    path, headers = f"/v1/keys/{made['record']['id']}/revoke", bearer(made["key"])
    later = ops.post(path, json={"in_seconds": 3_600}).json()
    assert (later["standing"], later["expires_at"] is None) == ("active", False)
    assert api.client.get("/v1/actions", headers=headers).status_code == 200
    assert ops.post(path, json={}).json()["standing"] == "revoked"
    assert problem(api.client.get("/v1/actions", headers=headers)) == (401, "unauthenticated")
    assert problem(ops.post(path, json={})) == (404, "not-found")


def test_a_key_whose_time_is_over_is_refused(api: Api, ops: httpx.Client) -> None:
    made = ops.post("/v1/keys", json={"name": "short", "scopes": ["read"], "seconds": 0.5}).json()
    until(lambda: api.client.get("/v1/actions", headers=bearer(made["key"])).status_code == 401)
    (found,) = (each for each in ops.get("/v1/keys").json()["keys"] if each["id"] == made["record"]["id"])
    assert found["standing"] == "expired"


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"scopes": ["root"]}, "scopes[0]"),
        ({"scopes": []}, "scopes"),
        ({"name": ""}, "name"),
        ({"name": "a\u202eb"}, "name"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": 1e300}, "seconds"),
        ({"rate_per_second": 0}, "rate_per_second"),
        ({"tenant": "other"}, "tenant"),
    ],
)
def test_what_cannot_be_a_key_is_400(ops: httpx.Client, wrong: dict[str, object], where: str) -> None:
    before = len(ops.get("/v1/keys").json()["keys"])
    refused = ops.post("/v1/keys", json={"name": "billing", "scopes": ["read"]} | wrong)
    assert problem(refused) == (400, "invalid-request")
    assert refused.json()["where"] == where
    assert len(ops.get("/v1/keys").json()["keys"]) == before


def test_who_is_no_admin_makes_no_key_and_sees_none(client: httpx.Client) -> None:
    assert problem(client.post("/v1/keys", json={"name": "me", "scopes": ["admin"]})) == (403, "forbidden")
    assert problem(client.get("/v1/keys")) == (403, "forbidden")


def test_from_python_it_is_the_producer_s_own_methods(
    api: Api, admin_key: str, house: House, remote: HttpProducer
) -> None:
    with closing(HttpProducer(api.url, key=admin_key)) as ops:
        record, key = ops.keys.create("billing", ["read"], seconds=60, reason="ticket 8")
        assert record in ops.keys.list()
        assert list(ops.keys.list()) == list(house.producer.keys.list())
        assert house.producer.keys.identify(key) == record
        assert ops.keys.revoke(record.id).standing == "revoked"
        for nothing in (record.id, "nothing", "a/b"):
            with pytest.raises(KeyNotFound):
                ops.keys.revoke(nothing)
        with pytest.raises(InvalidRequest):
            ops.keys.create("billing", ["root"])  # type: ignore[list-item]  # the point
    with pytest.raises(AccessRefused):
        remote.keys.list()


def test_the_acts_are_read_alike_in_pages_too(
    remote: HttpProducer, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        house.producer.keys.create(f"number {number}", ["read"], who="grace")
    monkeypatch.setattr("producer.http.PAGE", 2)
    assert remote.acts(who="grace", act="create key", limit=5) == house.producer.acts(who="grace", limit=5)
    assert len(remote.acts(who="grace", limit=5)) == 5
    oldest = remote.acts(who="grace", limit=5)[-1]
    assert remote.acts(who="grace", before=oldest.n, limit=5) == []
