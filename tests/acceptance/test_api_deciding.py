"""The HTTP API for those who decide: what becomes of jobs, of schedules and of breakers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.acceptance.asking import enqueue, problem, publish_policy, set_state
from tests.api_process import Api, bearer
from tests.houses import House, until


def test_a_job_is_cancelled_and_asking_again_is_answered_alike(client: httpx.Client, later: str) -> None:
    for _ in range(2):
        answer = client.post(f"/v1/jobs/{later}/cancel", json={"reason": "not wanted any more"}).json()
        assert (answer["answer"], answer["job"]["state"]) == ("cancelled", "cancelled")


def test_a_job_in_doubt_is_resolved_and_its_history_says_by_whose_key(
    client: httpx.Client, house: House, later: str
) -> None:
    assert problem(client.post(f"/v1/jobs/{later}/resolve", json={"verdict": "abandon", "reason": "r"})) == (
        409,
        "not-in-doubt",
    )
    set_state(house, later, "in_doubt", doubt=True)
    wrong = {"verdict": "happened", "result": {"total": "3"}, "reason": "it is in their books"}
    assert problem(client.post(f"/v1/jobs/{later}/resolve", json=wrong)) == (400, "invalid-request")
    right = wrong | {"result": {"total": 3}}
    done = client.post(f"/v1/jobs/{later}/resolve", json=right).json()
    assert (done["state"], done["result"]) == ("succeeded", {"total": 3})
    said = client.get(f"/v1/jobs/{later}/events").json()["events"][-1]["data"]
    assert said["who"].startswith("service (key ")


def test_a_dead_job_is_retried(client: httpx.Client, house: House, later: str) -> None:
    assert problem(client.post(f"/v1/jobs/{later}/retry", json={"reason": "r"})) == (409, "not-dead")
    set_state(house, later, "dead")
    assert client.post(f"/v1/jobs/{later}/retry", json={"reason": "their server is up"}).status_code == 200
    assert client.get(f"/v1/jobs/{later}", params={"wait": 30}).json()["result"] == {"total": 3}


def test_a_schedule_is_added_once_paused_resumed_and_removed(client: httpx.Client) -> None:
    body = {
        "name": "nightly",
        "action": "test.add",
        "params": {"a": 1, "b": 2},
        "cron": "0 3 * * *",
        "zone": "Asia/Tokyo",
    }
    added = client.post("/v1/schedules", json=body)
    assert (added.status_code, added.json()["zone"], added.json()["declared_by"]) == (201, "Asia/Tokyo", "person")
    assert client.post("/v1/schedules", json=body).json() == added.json()
    assert problem(client.post("/v1/schedules", json=body | {"cron": "0 4 * * *"})) == (409, "schedule-exists")
    assert [each["name"] for each in client.get("/v1/schedules").json()["schedules"]] == ["nightly"]
    ticks = client.get("/v1/schedules/nightly/ticks", params={"count": 3}).json()["ticks"]
    assert [tick[11:16] for tick in ticks] == ["18:00"] * 3
    assert client.post("/v1/schedules/nightly/pause").json()["paused_by"] == "person"
    assert client.post("/v1/schedules/nightly/resume").json()["paused_by"] is None
    assert client.delete("/v1/schedules/nightly").json()["name"] == "nightly"
    assert problem(client.get("/v1/schedules/nightly")) == (404, "not-found")


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        pytest.param({"cron": "0 0 30 2 *"}, "cron", id="never fires"),
        pytest.param({"cron": None}, "cron", id="neither"),
        pytest.param({"every": 5}, "every", id="both"),
        pytest.param({"zone": "Mars/Base"}, "zone", id="no such zone"),
    ],
)
def test_what_cannot_be_a_schedule_is_400(client: httpx.Client, wrong: dict[str, Any], where: str) -> None:
    body = {"name": "odd", "action": "test.add", "params": {"a": 1, "b": 2}, "cron": "0 3 * * *"} | wrong
    refused = client.post("/v1/schedules", json=body)
    assert problem(refused) == (400, "invalid-request")
    assert where in refused.text


def test_a_breaker_is_overridden_by_an_admin_alone_and_its_history_says_by_whom(
    api: Api, house: House, client: httpx.Client
) -> None:
    _, key = house.producer.keys.create("ops", ["admin"], who="tests")
    word = {"name": "test", "word": "open", "reason": "their maintenance", "seconds": 60}
    assert problem(client.post("/v1/breakers/force", json=word)) == (403, "forbidden")
    assert problem(client.get("/v1/breakers")) == (403, "forbidden")
    with httpx.Client(base_url=api.url, headers=bearer(key), timeout=30) as ops:
        assert ops.post("/v1/breakers/force", json=word).json()["forced"] == "open"
        held = enqueue(client).json()["job"]["id"]
        until(lambda: client.get(f"/v1/jobs/{held}").json()["waiting_for"] == "breaker")
        assert client.get(f"/v1/jobs/{held}").json()["waiting_on"] == "test"
        assert ops.post("/v1/breakers/force", json=word | {"word": "auto", "seconds": None}).json()["forced"] is None
        assert client.get(f"/v1/jobs/{held}", params={"wait": 40}).json()["state"] == "succeeded"
        history = ops.get("/v1/breakers/history", params={"name": "test"}).json()["transitions"]
        assert any(move["who"].startswith("ops (key ") for move in history)
        assert any(each["name"] == "test" for each in ops.get("/v1/breakers").json()["breakers"])
        assert problem(ops.post("/v1/breakers/force", json=word | {"name": "tset"})) == (404, "not-found")


def test_policies_are_listed_and_retired_by_an_admin_alone_for_a_reason_that_is_kept(
    api: Api, house: House, client: httpx.Client
) -> None:
    publish_policy(house, "of-last-year", "last.*")
    (shown,) = (each for each in client.get("/v1/policies").json()["policies"] if each["name"] == "of-last-year")
    assert (shown["version"], shown["patterns"], shown["declared_in"]) == (2, ["last.*"], "a module of last year")
    word = {"name": "of-last-year", "reason": "its module is gone"}
    assert problem(client.post("/v1/policies/retire", json=word)) == (403, "forbidden")
    _, key = house.producer.keys.create("ops", ["admin"], who="tests")
    with httpx.Client(base_url=api.url, headers=bearer(key), timeout=30) as ops:
        assert problem(ops.post("/v1/policies/retire", json=word | {"reason": " "})) == (400, "invalid-request")
        misspelt = ops.post("/v1/policies/retire", json=word | {"name": "of-lastyear"})
        assert problem(misspelt) == (404, "not-found")
        assert "did you mean 'of-last-year'?" in misspelt.json()["detail"]
        left = ops.post("/v1/policies/retire", json=word).json()["policies"]
        assert "of-last-year" not in [each["name"] for each in left]
        assert problem(ops.post("/v1/policies/retire", json=word)) == (404, "not-found")
        (act,) = ops.get("/v1/acts", params={"act": "retire policy"}).json()["acts"]
    assert (act["target"], act["reason"]) == ("of-last-year", "its module is gone")
    assert act["who"].startswith("ops (key ")
