"""The HTTP API as a service sees it that asks and looks: a real server, a real worker, a real ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy.engine import Connection, Transaction

from producer import HttpProducer
from producer.ledger.engine import open_engine
from producer.trace import new_traceparent, trace_id_of
from tests.acceptance.asking import ADD, enqueue, problem
from tests.houses import House


def test_a_job_is_accepted_performed_and_its_result_is_there_for_whoever_waits(client: httpx.Client) -> None:
    accepted = enqueue(client, key="invoice-7")
    assert accepted.status_code == 202
    said = accepted.json()
    assert (said["outcome"], said["job"]["action"], said["job"]["idempotency_key"]) == (
        "created",
        "test.add",
        "invoice-7",
    )
    assert accepted.headers["location"] == f"/v1/jobs/{said['job']['id']}"
    assert "idempotent-replayed" not in accepted.headers
    done = client.get(accepted.headers["location"], params={"wait": 30}).json()
    assert (done["state"], done["result"], done["is_at_rest"]) == ("succeeded", {"total": 3}, True)


def test_a_repeat_is_answered_with_the_same_job_and_says_that_it_is_one(client: httpx.Client) -> None:
    first = enqueue(client, key="twice", wait=30)
    again = enqueue(client, key="twice")
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert again.json()["outcome"] == "replayed"
    assert again.json()["job"]["id"] == first.json()["job"]["id"]
    assert again.json()["job"]["result"] == {"total": 3}


def test_a_key_in_quotes_is_the_same_as_one_without(client: httpx.Client) -> None:
    first, second = enqueue(client, key='"quoted"'), enqueue(client, key="quoted")
    assert first.json()["job"]["id"] == second.json()["job"]["id"]


def test_a_missing_key_is_400_and_one_may_be_derived_on_request(client: httpx.Client) -> None:
    assert problem(client.post("/v1/jobs", json=ADD)) == (400, "idempotency-key-missing")
    body = ADD | {"user_id": str(uuid4())}
    derived = client.post("/v1/jobs", json=body, params={"derive_key": True})
    again = client.post("/v1/jobs", json=body, params={"derive_key": True})
    assert (derived.json()["job"]["key_derived"], again.json()["outcome"]) == (True, "replayed")


def test_a_key_that_stands_for_another_request_is_422_and_names_places_without_values(client: httpx.Client) -> None:
    enqueue(client, key="conflict")
    refused = enqueue(client, {"action": "test.add", "params": {"a": 1, "b": 31337}}, key="conflict")
    assert problem(refused) == (422, "idempotency-conflict")
    (conflict,) = refused.json()["conflicts"]
    assert conflict["paths"] == ["params.b"]
    assert "31337" not in refused.text


def test_a_key_that_another_transaction_holds_and_does_not_end_is_409_with_a_time_to_wait(
    client: httpx.Client, house: House
) -> None:
    with accepting(house) as (connection, transaction):
        theirs = house.producer.enqueue("test.add", ADD["params"], idempotency_key="held", connection=connection)
        refused = enqueue(client, key="held")
        assert problem(refused) == (409, "key-in-flight")
        assert int(refused.headers["retry-after"]) > 0
        transaction.commit()
    again = enqueue(client, key="held").json()
    assert (again["outcome"], again["job"]["id"]) == ("replayed", str(theirs.id))


def test_a_producer_over_http_asks_again_by_itself_until_that_transaction_ends(
    remote: HttpProducer, house: House
) -> None:
    with accepting(house) as (connection, transaction), ThreadPoolExecutor(1) as thread:
        theirs = house.producer.enqueue("test.add", ADD["params"], idempotency_key="held-on", connection=connection)
        ours = thread.submit(remote.enqueue, "test.add", ADD["params"], idempotency_key="held-on")
        with pytest.raises(TimeoutError):
            ours.result(2.5)  # longer than one request is held
        transaction.commit()
        assert (ours.result(20).outcome, ours.result().id) == ("replayed", theirs.id)


@contextmanager
def accepting(house: House) -> Iterator[tuple[Connection, Transaction]]:
    """Somebody's own transaction, in which jobs are accepted."""
    engine = open_engine(house.settings.database_url, connections=1, name="tests")
    made = engine.connect().execution_options(isolation_level="READ COMMITTED")
    with made as connection, connection.begin() as transaction:
        yield connection, transaction
    engine.dispose()


def test_many_at_once_with_one_key_make_one_job(client: httpx.Client) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: enqueue(client, key="storm"), range(32)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["job"]["id"] for answer in answers}) == 1
    assert [answer.json()["outcome"] for answer in answers].count("created") == 1


def test_a_trace_is_taken_up_and_given_back(client: httpx.Client) -> None:
    trace = new_traceparent()
    headers = {"Idempotency-Key": str(uuid4()), "traceparent": trace}
    accepted = client.post("/v1/jobs", json=ADD, headers=headers)
    given = accepted.headers["traceparent"]
    assert trace_id_of(given) == trace_id_of(trace)
    assert given != trace
    assert accepted.json()["job"]["traceparent"] == given


def test_a_batch_is_accepted_whole_or_not_at_all(client: httpx.Client, house: House) -> None:
    keys = [str(uuid4()) for _ in range(3)]
    asked = [ADD | {"idempotency_key": key} for key in keys]
    accepted = client.post("/v1/batches", json={"requests": asked})
    assert accepted.status_code == 202
    assert [job["outcome"] for job in accepted.json()["jobs"]] == ["created"] * 3
    fresh = str(uuid4())
    clash = [ADD | {"idempotency_key": fresh}, ADD | {"params": {"a": 2, "b": 2}, "idempotency_key": keys[0]}]
    assert problem(client.post("/v1/batches", json={"requests": clash})) == (422, "idempotency-conflict")
    assert house.producer.find("test.add", fresh) is None
    told = client.post("/v1/batches", json={"requests": clash, "conflicts": "return"}).json()["jobs"]
    assert [job["outcome"] for job in told] == ["created", "conflict"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        pytest.param({"action": "test.add", "params": {"a": 1, "c": 2}}, "params.c", id="unknown parameter"),
        pytest.param({"action": "test.add", "params": {"a": "1", "b": 2}}, "params.a", id="wrong type"),
        pytest.param({"params": {}}, "action", id="no action"),
        pytest.param({**ADD, "nonsense": 1}, "nonsense", id="unknown field"),
        pytest.param({**ADD, "priority": 11}, "priority", id="priority out of range"),
        pytest.param({**ADD, "priority": True}, "priority", id="truth for a number"),
        pytest.param({**ADD, "run_at": "tomorrow"}, "run_at", id="no moment"),
        pytest.param({**ADD, "run_at": "2030-01-01T00:00:00"}, "run_at", id="no zone"),
        pytest.param({**ADD, "deadline": "2001-01-01T00:00:00Z"}, "deadline", id="deadline past"),
        pytest.param({**ADD, "reasoning": "a\x00b"}, "reasoning", id="null character"),
        pytest.param({**ADD, "on_closed": "maybe"}, "on_closed", id="unknown choice"),
    ],
)
def test_what_cannot_be_accepted_is_400_and_says_where(client: httpx.Client, body: Any, where: str) -> None:
    refused = enqueue(client, body)
    assert problem(refused) == (400, "invalid-request")
    assert where in refused.json()["where"]


def test_an_unknown_action_is_400_and_says_what_was_probably_meant(client: httpx.Client) -> None:
    refused = enqueue(client, {"action": "test.ad", "params": {}})
    assert problem(refused) == (400, "unknown-action")
    assert "test.add" in refused.json()["hint"]


# ---- looking ---------------------------------------------------------------------------------------------------


def test_jobs_are_paged_newest_first_without_gaps_or_repeats(client: httpx.Client) -> None:
    made = [enqueue(client, {"action": "test.add", "params": {"a": n, "b": 0}}).json()["job"]["id"] for n in range(7)]
    seen: list[str] = []
    cursor: str | None = None
    while len(seen) < 7:
        query: dict[str, Any] = {"action": "test.add", "limit": 3} | ({} if cursor is None else {"cursor": cursor})
        page = client.get("/v1/jobs", params=query).json()
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next"]
    assert seen[:7] == made[::-1]


def test_a_cursor_that_nobody_gave_is_400(client: httpx.Client) -> None:
    assert problem(client.get("/v1/jobs", params={"cursor": "!!"})) == (400, "invalid-request")
    assert problem(client.get("/v1/jobs", params={"cursor": "YWJj"})) == (400, "invalid-request")


def test_a_job_is_found_by_its_key(client: httpx.Client) -> None:
    job = enqueue(client, key="findable").json()["job"]
    found = client.get("/v1/jobs/by-key", params={"action": "test.add", "idempotency_key": "findable"})
    assert found.json()["id"] == job["id"]
    nobody = client.get("/v1/jobs/by-key", params={"action": "test.add", "idempotency_key": "nobody"})
    assert problem(nobody) == (404, "not-found")


def test_a_chain_has_every_decision_of_a_request_in_order(client: httpx.Client) -> None:
    request = str(uuid4())
    made = [
        enqueue(client, {"action": "test.add", "params": {"a": n, "b": 0}, "request_id": request, "reasoning": f"n{n}"})
        for n in range(3)
    ]
    chain = client.get(f"/v1/requests/{request}/chain").json()
    assert [job["id"] for job in chain["jobs"]] == [each.json()["job"]["id"] for each in made]
    assert [job["reasoning"] for job in chain["jobs"]] == ["n0", "n1", "n2"]
    assert problem(client.get("/v1/requests/nobody/chain")) == (404, "not-found")


def test_a_history_is_read_in_order_and_streamed_until_the_job_is_at_rest(client: httpx.Client) -> None:
    job = enqueue(client).json()["job"]
    with client.stream("GET", f"/v1/jobs/{job['id']}/live") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = list(stream.iter_lines())  # which ends by itself
    kinds = [json.loads(line[6:])["kind"] for line in lines if line.startswith("data: ") and '"kind"' in line]
    assert kinds == ["accepted", "claimed", "intended", "succeeded"]
    assert "event: rest" in lines
    history = client.get(f"/v1/jobs/{job['id']}/events").json()["events"]
    assert [event["kind"] for event in history] == kinds
    with client.stream("GET", f"/v1/jobs/{job['id']}/live", headers={"Last-Event-ID": "3"}) as stream:
        again = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    assert [event["seq"] for event in again if "seq" in event] == [4]


def test_the_actions_are_listed_with_their_schemas(client: httpx.Client) -> None:
    actions = {action["name"]: action for action in client.get("/v1/actions").json()["actions"]}
    assert actions["test.add"]["params_schema"]["required"] == ["a", "b"]
    assert client.get("/v1/actions/test.add").json() == actions["test.add"]
    assert problem(client.get("/v1/actions/no.such")) == (404, "not-found")


def test_a_wait_that_is_over_before_the_job_answers_with_the_job_as_it_stands(client: httpx.Client) -> None:
    later = enqueue(client, ADD | {"run_at": "2099-01-01T00:00:00Z"}).json()["job"]
    assert client.get(f"/v1/jobs/{later['id']}", params={"wait": 0.2}).json()["state"] == "queued"
