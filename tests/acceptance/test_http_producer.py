"""`HttpProducer` beside `Producer`: the same methods, the same errors, the same records."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from producer import (
    AccessRefused,
    ApiUnavailable,
    HttpProducer,
    IdempotencyConflict,
    InvalidRequest,
    JobDegraded,
    JobNotDead,
    JobNotFound,
    JobNotInDoubt,
    Producer,
    SettingsError,
    UnknownAction,
)
from producer.errors import (
    ConversationNotFound,
    JobFailed,
    JobUnfinished,
)
from producer.ledger.engine import open_engine
from tests.api_process import Api
from tests.houses import House
from tests.http_stand_in import Answering, served

ADD = {"a": 1, "b": 2}
LATER = datetime(2099, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Proxy:
    """Somebody in between who answers with a page of his own."""

    url: str
    status: int = 502


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    class Page(Answering):
        def get(self) -> None:
            self.say(told.status, "text/html", b"<h1>somewhere else</h1>")

    with served(Page) as url:
        told = Proxy(url)
        yield told


def test_a_job_is_enqueued_waited_for_and_read_as_by_the_producer_beside_the_ledger(
    remote: HttpProducer, house: House
) -> None:
    job = remote.enqueue("test.add", ADD, idempotency_key="k1", request_id="r1", reasoning="two and one")
    assert job.outcome == "created"
    assert job.get(30) == {"total": 3}
    near = house.producer.job(job.id)
    assert {name: getattr(job.record, name) for name in job.record.__dataclass_fields__ if name != "age"} == {
        name: getattr(near.record, name) for name in near.record.__dataclass_fields__ if name != "age"
    }
    assert job.events == near.events
    assert [record.id for record in remote.chain("r1")] == [job.id]
    assert remote.chain("nobody") == []
    assert remote.enqueue("test.add", ADD, idempotency_key="k1").outcome == "replayed"
    found = remote.find("test.add", "k1")
    assert found is not None
    assert found.id == job.id
    assert remote.find("test.add", "nobody") is None
    assert remote.job(job.id).result == {"total": 3}


def test_everything_that_the_one_can_the_other_can_too() -> None:
    remote = {name for name, _ in inspect.getmembers(HttpProducer) if not name.startswith("_")}
    near = {name for name, _ in inspect.getmembers(Producer) if not name.startswith("_")}
    # What belongs to whoever has the ledger itself.
    theirs = {"counts", "erase", "flush", "for_tenant", "gate_standing", "glance", "outline", "ping"}
    theirs |= {"standing", "verify"}
    assert near - remote == theirs
    assert remote <= near | {"waiting"}
    parts = {"waiting", "approvals", "breakers", "budgets", "keys", "policies", "roles", "schedules"}
    for name in remote & near - parts:
        there, here = (set(inspect.signature(getattr(each, name)).parameters) for each in (HttpProducer, Producer))
        assert here - there <= {"connection"}, name  # which is to be in a caller's own transaction


def test_an_explanation_is_the_same(remote: HttpProducer, house: House) -> None:
    job = remote.enqueue("test.add", ADD, idempotency_key="explained", request_id="a/b c", reasoning="why not")
    assert job.get(30) == {"total": 3}
    assert remote.explain(job.id) == house.producer.explain(job.id)
    assert remote.explain_key("explained", action="test.add") == [remote.explain(job.id)]
    assert remote.explain_request("a/b c") == [remote.explain(job.id)]
    assert remote.explain_key("nobody") == remote.explain_request("nobody") == []
    with pytest.raises(JobNotFound):
        remote.explain(uuid4())


def test_a_request_whose_name_has_slashes_has_its_chain(remote: HttpProducer) -> None:
    name = f"orders/{uuid4()}/chain"
    job = remote.enqueue("test.add", ADD, request_id=name)
    assert [record.id for record in remote.chain(name)] == [job.id]


def test_actions_are_read_alike(remote: HttpProducer, house: House) -> None:
    there, here = remote.actions(), house.producer.actions()
    assert there.keys() == here.keys()
    names = here["test.add"].__dataclass_fields__
    assert [getattr(there["test.add"], name) for name in names] == [getattr(here["test.add"], name) for name in names]


def test_jobs_are_listed_over_several_pages(remote: HttpProducer, monkeypatch: pytest.MonkeyPatch) -> None:
    made = remote.enqueue_many([{"action": "test.add", "params": ADD, "idempotency_key": f"p{n}"} for n in range(7)])
    monkeypatch.setattr("producer.http.PAGE", 3)
    assert {job.id for job in remote.jobs(limit=7)} == {job.id for job in made}
    assert len(remote.jobs(action="test.add", limit=2)) == 2
    listed = [job.id for job in remote.jobs(limit=7)]
    assert [job.id for job in remote.jobs(limit=3, before=listed[2])] == listed[3:6]


def test_a_batch_that_has_no_end_is_refused_before_anything_is_sent(remote: HttpProducer) -> None:
    with pytest.raises(InvalidRequest, match=r"requests: are more than the 10,000 of a batch"):
        remote.enqueue_many(repeat({"action": "test.add", "params": ADD, "idempotency_key": "endless"}))
    assert remote.find("test.add", "endless") is None


def test_errors_are_the_same_ones(remote: HttpProducer) -> None:
    with pytest.raises(InvalidRequest, match=r"params\.c") as invalid:
        remote.enqueue("test.add", {"a": 1, "c": 1})
    assert invalid.value.index == 0
    with pytest.raises(UnknownAction, match=r"did you mean 'test\.add'"):
        remote.enqueue("test.ad")
    remote.enqueue("test.add", ADD, idempotency_key="clash")
    with pytest.raises(IdempotencyConflict) as conflict:
        remote.enqueue("test.add", {"a": 9, "b": 2}, idempotency_key="clash")
    assert conflict.value.conflicts[0].paths == ("params.a",)
    with pytest.raises(JobNotFound):
        remote.job(uuid4())
    with pytest.raises(JobNotFound):
        remote.job("no id")
    with pytest.raises(ConversationNotFound):
        remote.conversation("nobody")
    job = remote.enqueue("test.add", ADD, run_at=LATER, idempotency_key="later")
    with pytest.raises(JobNotInDoubt):
        job.resolve("abandon", reason="why not")
    with pytest.raises(JobNotDead):
        job.retry(reason="why not")
    with pytest.raises(InvalidRequest, match="who"):
        job.retry(reason="why not", who="ada")


def test_what_a_fallback_stands_in_for_is_no_success_on_this_end_either(remote: HttpProducer) -> None:
    job = remote.enqueue("fallback.value", idempotency_key="degraded")
    with pytest.raises(JobDegraded) as degraded:
        job.get(30)
    assert (degraded.value.rule, degraded.value.fallback) == ("out of retries", {"amount": 9.5, "said_by": "list"})
    assert (job.state, job.result, job.record.degraded_by) == ("degraded", None, "out of retries")


@pytest.mark.parametrize(
    ("params", "where"),
    [
        pytest.param({"a": math.nan, "b": 2}, "params.a", id="no JSON number"),
        pytest.param({"a": object(), "b": 2}, "params.a", id="no JSON at all"),
        pytest.param([1, 2], "params", id="no names"),
    ],
)
def test_what_no_json_can_say_is_refused_as_by_the_other_with_its_place_in_the_batch(
    remote: HttpProducer, house: House, params: Any, where: str
) -> None:
    asked = [{"action": "test.add", "params": ADD}, {"action": "test.add", "params": params}]
    for producer in (remote, house.producer):
        with pytest.raises(InvalidRequest) as refused:
            producer.enqueue_many(asked)
        assert (refused.value.where, refused.value.index) == (where, 1)


@pytest.mark.parametrize("status", [200, 404, 409, 500])
def test_a_page_of_somebody_in_between_is_not_taken_for_the_api_s_word(status: int, proxy: Proxy) -> None:
    proxy.status = status
    made = HttpProducer(proxy.url, key="sf_x", retry_seconds=0)
    with closing(made) as there, pytest.raises(ApiUnavailable, match=f"is not the API: {status}"):
        there.actions()


def test_a_wait_that_is_over_first_says_so_and_a_cancelled_job_has_no_result(remote: HttpProducer) -> None:
    job = remote.enqueue("test.add", ADD, run_at=LATER, idempotency_key="cancelled")
    with pytest.raises(JobUnfinished):
        job.wait(0.2)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(remote.job(job.id).get, 30)
        assert (job.cancel("not wanted"), job.cancel("not wanted")) == ("cancelled", "cancelled")
        with pytest.raises(JobFailed, match="is cancelled"):
            waiting.result(30)


def test_doubt_is_resolved_and_the_history_says_by_whose_key(remote: HttpProducer, house: House) -> None:
    job = remote.enqueue("test.add", ADD, run_at=datetime.now(UTC) + timedelta(hours=1), idempotency_key="doubt")
    with open_engine(house.settings.database_url, connections=1, name="tests").connect() as connection:
        doubt = "UPDATE jobs SET state = 'in_doubt', maybe_happened = true WHERE id = :id"
        connection.execute(text(doubt), {"id": job.id})
    assert job.resolve("happened", result={"total": 3}, reason="in their books").result == {"total": 3}
    assert "service (key " in str(job.events[-1].data)


def test_a_key_that_is_none_is_refused_as_such(api: Api) -> None:
    with closing(HttpProducer(api.url, key="nonsense")) as stranger, pytest.raises(AccessRefused):
        stranger.actions()


def test_an_api_that_is_away_is_tried_for_a_while_and_then_said_to_be() -> None:
    made = HttpProducer("http://127.0.0.1:9", key="sf_x", retry_seconds=0.3)
    with closing(made) as nowhere, pytest.raises(ApiUnavailable, match="ConnectError"):
        nowhere.enqueue("test.add", ADD, idempotency_key="k")


def test_without_a_url_it_says_which_setting_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUREFOOT_API_URL", raising=False)
    with pytest.raises(SettingsError, match="SUREFOOT_API_URL"):
        HttpProducer()
