"""Whatever is a tenant's own is not there for another one, whichever way it is asked for and whatever his key may."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from producer.keys import SCOPES
from tests.acceptance.asking import problem
from tests.api_process import Api, api_of, bearer
from tests.houses import House, until

OURS = "ours-alone"
SIGNING = {"SUREFOOT_SIGNING_KEY": "a key for the tests, and long enough"}


@pytest.fixture(scope="module")
def api(house: House) -> Iterator[Api]:
    with api_of(house.settings, house.folder, SIGNING) as made:
        yield made


@pytest.fixture(scope="module")
def ours(house: House, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One of each thing that a tenant has, by the names that stand for it in an address."""
    producer, book = house.producer, tmp_path_factory.mktemp("books") / OURS
    said = {"conversation_id": OURS, "text": "hello"}
    producer.enqueue("talk.say", said, idempotency_key=OURS, request_id=OURS).get(30)
    job = producer.enqueue("gated.pay", {"book": str(book), "amount": 500.0}, user_id=OURS, idempotency_key=OURS)
    (approval,) = until(lambda: producer.approvals.of_job(job.id))
    producer.schedules.add(OURS, "test.add", {"a": 1, "b": 2}, every=3_600)
    producer.roles.grant(OURS, "ben", who="tests")
    record, _ = producer.keys.create(OURS, ["read"], who="tests")
    return {
        "job_id": str(job.id),
        "approval_id": str(approval.id),
        "digest": approval.digest,
        "request_id": OURS,
        "conversation_id": OURS,
        "name": OURS,
        "key_id": record.id,
        "book": str(book),
    }


@pytest.fixture(scope="module")
def them(api: Api, house: House) -> Iterator[httpx.Client]:
    """Somebody of another tenant who may do everything there."""
    other = house.producer.for_tenant("other")
    _, key = other.keys.create("theirs", SCOPES, who="tests", rate_per_second=10_000)
    with httpx.Client(base_url=api.url, headers=bearer(key), timeout=30) as made:
        yield made


def bodies(ours: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What comes along, by the end of an address; all of it would do for a job of his own."""
    word = {"digest": ours["digest"], "reason": "mine now"}
    return {
        "cancel": {},
        "retry": {"reason": "r"},
        "resolve": {"verdict": "abandon", "reason": "r"},
        "undo": {"reason": "r"},
        "approve": word,
        "reject": word,
        "edit": word | {"params": {"book": ours["book"], "amount": 1.0}},
        "withdraw": {"reason": "r"},
        "tokens": {"verdict": "approve", "person": "theirs"},
        "decide-ahead": word | {"verdict": "approve"},
        "revoke": {},
    }


SINGLE = [
    "GET /v1/jobs/{job_id}",
    "GET /v1/jobs/{job_id}?wait=1",
    "GET /v1/jobs/{job_id}/explain",
    "GET /v1/jobs/{job_id}/events",
    "GET /v1/jobs/{job_id}/live",
    "GET /v1/jobs/{job_id}/digest",
    "POST /v1/jobs/{job_id}/cancel",
    "POST /v1/jobs/{job_id}/retry",
    "POST /v1/jobs/{job_id}/resolve",
    "POST /v1/jobs/{job_id}/undo",
    "POST /v1/jobs/{job_id}/decide-ahead",
    "GET /v1/jobs/by-key?action=talk.say&idempotency_key=ours-alone",
    "GET /v1/jobs/by-key/explain?action=talk.say&idempotency_key=ours-alone",
    "GET /v1/requests/{request_id}/chain",
    "GET /v1/requests/{request_id}/explain",
    "GET /v1/conversations/{conversation_id}",
    "GET /v1/schedules/{name}",
    "GET /v1/schedules/{name}/ticks",
    "POST /v1/schedules/{name}/pause",
    "POST /v1/schedules/{name}/resume",
    "DELETE /v1/schedules/{name}",
    "GET /v1/approvals/{approval_id}",
    "POST /v1/approvals/{approval_id}/approve",
    "POST /v1/approvals/{approval_id}/reject",
    "POST /v1/approvals/{approval_id}/edit",
    "POST /v1/approvals/{approval_id}/withdraw",
    "POST /v1/approvals/{approval_id}/tokens",
    "POST /v1/keys/{key_id}/revoke",
]


@pytest.mark.parametrize("route", SINGLE)
def test_what_is_one_tenant_s_is_404_for_another(them: httpx.Client, ours: dict[str, str], route: str) -> None:
    method, path = route.split()
    body = bodies(ours).get(path.rpartition("/")[2]) if method == "POST" else None
    refused = them.request(method, path.format(**ours), json=body)
    assert problem(refused) == (404, "not-found")
    said = path.format(**ours)  # by himself, which may come back
    assert [each for each in ours.values() if each in refused.text and each not in said] == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs",
        "/v1/jobs/{job_id}/approvals",
        "/v1/approvals?every=true",
        "/v1/schedules",
        "/v1/roles",
        "/v1/keys",
        "/v1/acts",
        "/v1/acts?job_id={job_id}",
    ],
)
def test_no_list_has_anything_of_another_tenant_s(them: httpx.Client, ours: dict[str, str], path: str) -> None:
    listed = them.get(path.format(**ours))
    assert listed.status_code in (200, 404)
    assert OURS not in listed.text
    assert ours["job_id"] not in listed.text


def test_one_key_of_two_tenants_is_two_jobs(them: httpx.Client, ours: dict[str, str], house: House) -> None:
    body = {"action": "test.add", "params": {"a": 1, "b": 2}, "run_at": "2099-01-01T00:00:00Z"}
    theirs = them.post("/v1/jobs", json=body, headers={"Idempotency-Key": OURS}).json()["job"]["id"]
    assert house.producer.find("test.add", OURS) is None
    assert theirs != ours["job_id"]


def test_after_all_of_that_everything_is_as_it_was(ours: dict[str, str], house: House) -> None:
    producer = house.producer
    assert producer.job(UUID(ours["job_id"])).state == "awaiting_approval"
    assert producer.approvals.get(UUID(ours["approval_id"])).votes == ()
    assert producer.schedules.get(OURS).paused_at is None
    assert [key.standing for key in producer.keys.list() if key.id == ours["key_id"]] == ["active"]


def test_who_has_no_job_of_that_name_is_told_so_in_the_same_words(them: httpx.Client, ours: dict[str, str]) -> None:
    there, nowhere = (them.get(f"/v1/jobs/{each}").json() for each in (ours["job_id"], uuid4()))
    assert there == nowhere


@pytest.fixture(autouse=True)
def _nothing_is_done(ours: dict[str, str]) -> Iterator[None]:
    yield
    assert not Path(ours["book"]).exists()
