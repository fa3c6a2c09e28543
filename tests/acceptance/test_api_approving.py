"""Approving over HTTP, by those who would: again, too late, their own, something else, both ways at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import httpx
import pytest
from sqlalchemy import text

from producer import Approval, State
from producer.job import Job
from producer.ledger.engine import open_engine
from tests.acceptance.asking import problem
from tests.api_process import Api, bearer
from tests.houses import House, until


def somebody(api: Api, house: House, name: str) -> httpx.Client:
    """Somebody of that name who may approve."""
    _, key = house.producer.keys.create(name, ["read", "approve"], who="tests", rate_per_second=10_000)
    return httpx.Client(base_url=api.url, headers=bearer(key), timeout=30)


@pytest.fixture(scope="module")
def ben(api: Api, house: House) -> Iterator[httpx.Client]:
    with somebody(api, house, "ben") as made:
        yield made


@pytest.fixture(scope="module")
def eve(api: Api, house: House) -> Iterator[httpx.Client]:
    with somebody(api, house, "eve") as made:
        yield made


@pytest.fixture
def job(house: House, tmp_path: Path) -> Job:
    params = {"book": str(tmp_path / "book"), "amount": 500.0}
    made = house.producer.enqueue("gated.pay", params, user_id="ada", agent_id="bot")
    until(lambda: made.refresh().state is State.AWAITING_APPROVAL)
    return made


@pytest.fixture
def approval(house: House, job: Job) -> Approval:
    return house.producer.approvals.of_job(job.id)[-1]


def say(who: httpx.Client, approval: Approval, verdict: str = "approve", **more: str) -> httpx.Response:
    word = {"digest": approval.digest, "reason": "agreed on the phone"} | more
    return who.post(f"/v1/approvals/{approval.id}/{verdict}", json=word)


def test_a_word_that_is_said_again_is_told_what_was_decided_and_counts_once(
    ben: httpx.Client, eve: httpx.Client, job: Job, approval: Approval
) -> None:
    first = say(ben, approval)
    assert first.status_code == 200
    assert say(ben, approval).json()["votes"] == first.json()["votes"]
    refused = say(eve, approval, "reject")
    assert problem(refused) == (409, "approval-closed")
    assert (refused.json()["state"], refused.json()["decided_by"]) == ("approved", "ben")
    assert job.get(30) == 1
    assert len(ben.get(f"/v1/approvals/{approval.id}").json()["votes"]) == 1


def test_one_person_is_one_vote_of_two(ben: httpx.Client, house: House, tmp_path: Path) -> None:
    house.producer.roles.grant("finance", "ben", who="tests")
    job = house.producer.enqueue("gated.pay", {"book": str(tmp_path / "book"), "amount": 5_000.0}, user_id="ada")
    (approval,) = until(lambda: house.producer.approvals.of_job(job.id))
    said = say(ben, approval)
    assert (said.status_code, said.json()["missing"]) == (200, 1)
    assert problem(say(ben, approval, "reject")) == (403, "approver-refused")
    assert ben.get(f"/v1/approvals/{approval.id}").json()["missing"] == 1
    assert job.refresh().state is State.AWAITING_APPROVAL


@pytest.mark.parametrize("name", ["ada", "ADA ", "\uff21da", "bot", "mallory"])
def test_who_asked_the_agent_that_did_and_strangers_approve_nothing(
    api: Api, house: House, job: Job, approval: Approval, name: str
) -> None:
    with somebody(api, house, name) as who:
        assert problem(say(who, approval)) == (403, "approver-refused")
    assert job.refresh().state is State.AWAITING_APPROVAL


@pytest.mark.parametrize("digest", ["0" * 64, "", "0" * 63, "\u0661" * 64, "' OR 1=1 --"])
def test_another_digest_approves_nothing(ben: httpx.Client, job: Job, approval: Approval, digest: str) -> None:
    status, _ = problem(say(ben, approval, digest=digest))
    assert status in (400, 409)
    assert job.refresh().state is State.AWAITING_APPROVAL


def test_what_was_altered_since_is_approved_by_nobody(
    ben: httpx.Client, house: House, job: Job, approval: Approval, tmp_path: Path
) -> None:
    in_ledger(house, "UPDATE decisions SET user_id = 'mallory' WHERE job_id = :id", job)
    refused = say(ben, approval)
    assert problem(refused) == (409, "approval-mismatch")
    assert refused.json()["altered"] is True
    assert not (tmp_path / "book").exists()


def test_what_was_cancelled_is_approved_by_nobody(
    ben: httpx.Client, house: House, job: Job, approval: Approval
) -> None:
    house.producer.cancel(job.id, reason="never mind")
    assert problem(say(ben, approval)) == (409, "approval-closed")
    assert job.refresh().state is State.CANCELLED


def test_what_nobody_decided_in_time_is_approved_by_nobody(
    ben: httpx.Client, house: House, job: Job, approval: Approval, tmp_path: Path
) -> None:
    in_ledger(house, "UPDATE approvals SET expires_at = clock_timestamp() - interval '1 s' WHERE job_id = :id", job)
    assert problem(say(ben, approval)) == (409, "approval-closed")
    until(lambda: job.refresh().state is State.EXPIRED)
    assert problem(say(ben, approval)) == (409, "approval-closed")
    assert not (tmp_path / "book").exists()


def test_of_a_yes_and_a_no_at_once_one_is_first_and_the_job_goes_one_way(
    ben: httpx.Client, eve: httpx.Client, job: Job, approval: Approval
) -> None:
    at_once = Barrier(2)

    def word(who: httpx.Client, verdict: str) -> int:
        at_once.wait(10)
        return say(who, approval, verdict).status_code

    with ThreadPoolExecutor(2) as pool:
        yes, no = pool.submit(word, ben, "approve"), pool.submit(word, eve, "reject")
        assert sorted((yes.result(30), no.result(30))) == [200, 409]
    until(lambda: job.refresh().state is (State.SUCCEEDED if yes.result() == 200 else State.REJECTED))


def in_ledger(house: House, statement: str, job: Job) -> None:
    with open_engine(house.settings.database_url, connections=1, name="tests").connect() as connection:
        connection.execute(text(statement), {"id": job.id})
