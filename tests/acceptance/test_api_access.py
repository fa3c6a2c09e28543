"""Who gets in over HTTP, what is told to whom, and what is told to nobody."""

from __future__ import annotations

from uuid import uuid4

import httpx

from tests.acceptance.asking import ADD, enqueue, problem
from tests.api_process import Api, bearer
from tests.houses import House


def test_without_a_valid_key_nothing_is_said(api: Api, house: House) -> None:
    record, key = house.producer.keys.create("gone", ["read"], who="tests")
    house.producer.keys.revoke(record.id, who="tests")
    tampered = key[:-1] + ("a" if key[-1] != "a" else "b")
    for headers in ({}, bearer(key), bearer(tampered), bearer("nonsense"), {"Authorization": "Basic eDp5"}):
        refused = api.client.get("/v1/jobs", headers=headers)
        assert problem(refused) == (401, "unauthenticated")
        assert refused.headers["www-authenticate"].startswith("Bearer")


def test_a_revoked_key_is_refused_from_the_next_request_on(api: Api, house: House) -> None:
    record, key = house.producer.keys.create("leaver", ["read"], who="tests")
    assert api.client.get("/v1/actions", headers=bearer(key)).status_code == 200
    house.producer.keys.revoke(record.id, who="tests")
    assert api.client.get("/v1/actions", headers=bearer(key)).status_code == 401


def test_a_key_does_what_its_scopes_say_and_no_more(api: Api, house: House, later: str) -> None:
    _, key = house.producer.keys.create("reader", ["read"], who="tests")
    headers = bearer(key)
    assert api.client.get(f"/v1/jobs/{later}", headers=headers).status_code == 200
    asked = api.client.post("/v1/jobs", json=ADD, headers=headers | {"Idempotency-Key": "k"})
    assert (problem(asked), asked.json()["scope"]) == ((403, "forbidden"), "enqueue")
    assert problem(api.client.post(f"/v1/jobs/{later}/cancel", json={}, headers=headers)) == (403, "forbidden")
    assert problem(api.client.get("/metrics", headers=headers)) == (403, "forbidden")


def test_another_tenants_job_is_not_there(api: Api, house: House, later: str) -> None:
    other = house.producer.for_tenant("other")
    _, key = other.keys.create("theirs", ["read", "operate"], who="tests")
    for answer in (
        api.client.get(f"/v1/jobs/{later}", headers=bearer(key)),
        api.client.get(f"/v1/jobs/{later}/events", headers=bearer(key)),
        api.client.get(f"/v1/jobs/{later}/live", headers=bearer(key)),
        api.client.post(f"/v1/jobs/{later}/cancel", json={}, headers=bearer(key)),
    ):
        assert problem(answer) == (404, "not-found")
    assert house.producer.job(later).state == "queued"


def test_a_key_that_asks_too_often_is_told_how_long_to_wait(api: Api, house: House) -> None:
    _, key = house.producer.keys.create("eager", ["read"], rate_per_second=0.01, who="tests")
    assert api.client.get("/v1/actions", headers=bearer(key)).status_code == 200
    refused = api.client.get("/v1/actions", headers=bearer(key))
    assert problem(refused) == (429, "too-many-requests")
    assert 50 < int(refused.headers["retry-after"]) <= 100


def test_no_key_and_no_value_is_in_the_log(api: Api, client: httpx.Client) -> None:
    enqueue(client, ADD | {"reasoning": "canary-in-the-body"}, key="canary-in-the-key")
    assert api.events("api.request")
    written = api.log.read_text()
    assert "canary" not in written
    assert "sf_" not in written


def test_health_asks_the_ledger_and_the_broker(api: Api) -> None:
    assert api.client.get("/livez").json() == {"status": "alive"}
    assert api.client.get("/readyz").json() == {"status": "ready", "ledger": "ok", "broker": "ok"}


def test_prometheus_is_told_of_requests_and_of_the_ledger(api: Api, house: House, later: str) -> None:
    _, key = house.producer.keys.create("prometheus", ["admin"], who="tests")
    assert house.producer.job(later).state == "queued"
    assert api.client.get("/livez").status_code == 200
    told = api.client.get("/metrics", headers=bearer(key)).text
    assert 'surefoot_api_requests_total{method="GET",route="/livez",status="200"}' in told
    assert any(
        line.startswith('surefoot_jobs{state="queued"}') and float(line.split()[1]) >= 1 for line in told.splitlines()
    )


def test_each_problem_explains_itself_where_its_type_points(client: httpx.Client) -> None:
    refused = client.get(f"/v1/jobs/{uuid4()}")
    assert client.get(refused.json()["type"]).json()["what_to_do"]
    assert problem(client.get("/problems/none")) == (404, "not-found")
    assert problem(client.get("/nowhere")) == (404, "not-found")
    assert problem(client.put("/v1/jobs")) == (405, "method-not-allowed")


def test_answers_have_safe_headers(client: httpx.Client) -> None:
    headers = client.get("/v1/actions").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
