"""Approving in the console, and by a link: exactly what was seen, by whoever may, once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from producer import Approval, State
from producer.job import Job
from tests.acceptance.browsing import browser_of, form_token, signed_in, submit
from tests.api_process import Api, api_of
from tests.houses import House, until

SIGNING = {"SUREFOOT_SIGNING_KEY": "a key for the tests, and long enough"}


@pytest.fixture(scope="module")
def api(house: House) -> Iterator[Api]:
    with api_of(house.settings, house.folder, SIGNING) as made:
        yield made


@pytest.fixture(scope="module")
def ben(api: Api, house: House) -> Iterator[httpx.Client]:
    with signed_in(api, house, "read", "approve", "operate", name="ben") as browser:
        yield browser


@pytest.fixture
def job(house: House, tmp_path: Path) -> Job:
    """A job of which people are asked."""
    params = {"book": str(tmp_path / "book"), "amount": 500.0}
    made = house.producer.enqueue("gated.pay", params, user_id="ada", agent_id="bot", reasoning="<b>she is owed it</b>")
    until(lambda: made.refresh().state is State.AWAITING_APPROVAL)
    return made


@pytest.fixture
def approval(house: House, job: Job) -> Approval:
    return house.producer.approvals.of_job(job.id)[-1]


def test_what_is_asked_is_shown_with_its_preview_and_approved_as_it_was_seen(
    ben: httpx.Client, house: House, job: Job, approval: Approval
) -> None:
    page = f"/console/approvals/{approval.id}"
    for listed in ("/console/approvals", "/console", f"/console/jobs/{job.id}"):
        assert page in ben.get(listed).text
    shown = ben.get(page).text
    for words in ("100 or more", approval.digest, "What it would change", "&lt;b&gt;she is owed it", "ben, eve, kim"):
        assert words in shown
    assert "reason: is missing" in submit(ben, page, f"{page}/decide", verdict="approve", digest=approval.digest).text
    done = submit(ben, page, f"{page}/decide", verdict="approve", digest=approval.digest, reason="agreed on the phone")
    assert "Your approval is recorded." in done.text
    assert job.get(30) == 1
    (vote,) = house.producer.approvals.get(approval.id).votes
    assert (vote.by, vote.address) == ("ben", "127.0.0.1")
    (act,) = house.producer.acts(job_id=job.id)
    assert (act.act, act.who, act.via) == ("approve", "ben", vote.via)
    assert re.fullmatch(r"console, key \w{12} from 127\.0\.0\.1", act.via)


def test_what_changed_since_it_was_seen_is_not_approved(ben: httpx.Client, house: House, approval: Approval) -> None:
    page = f"/console/approvals/{approval.id}"
    refused = submit(ben, page, f"{page}/decide", verdict="approve", digest="0" * 64, reason="whatever it is")
    assert refused.status_code == 409
    assert house.producer.approvals.get(approval.id).state == "pending"


def test_who_asked_may_not_approve_and_is_told_why(api: Api, house: House, job: Job, approval: Approval) -> None:
    page = f"/console/approvals/{approval.id}"
    with signed_in(api, house, "read", "approve", name="Ada") as browser:
        shown = browser.get(page).text
        assert "somebody else has to decide" in shown
        assert "/decide" not in shown  # nobody gives reasons for a word that will be refused
        refused = submit(browser, page, f"{page}/decide", verdict="approve", digest=approval.digest, reason="mine")
    assert (refused.status_code, "Somebody else" in refused.text or "may not" in refused.text) == (403, True)
    assert job.refresh().state is State.AWAITING_APPROVAL


def test_who_is_not_asked_is_told_so_and_one_who_has_said_his_word_that_others_are_missing(
    api: Api, house: House, approval: Approval, tmp_path: Path
) -> None:
    with signed_in(api, house, "read", "approve", name="mallory") as browser:
        shown = browser.get(f"/console/approvals/{approval.id}").text
        assert ("As mallory you are none of those who may decide" in shown, "/decide" in shown) == (True, False)
    asked = house.producer.enqueue("gated.pay", {"book": str(tmp_path / "b"), "amount": 5_000.0}, user_id="ada")
    (large,) = until(lambda: house.producer.approvals.of_job(asked.id))
    page = f"/console/approvals/{large.id}"
    with signed_in(api, house, "read", "approve", name="Lin") as browser:
        assert "none of those who may decide" in browser.get(page).text
        house.producer.roles.grant("finance", "lin", who="tests")
        done = submit(browser, page, f"{page}/decide", verdict="approve", digest=large.digest, reason="fine")
        assert "Your approval is recorded." in done.text
        assert ("You have said approve" in done.text, "/decide" in done.text) == (True, False)


def test_whoever_comes_second_is_told_what_was_decided_first(
    ben: httpx.Client, api: Api, house: House, job: Job, approval: Approval
) -> None:
    page = f"/console/approvals/{approval.id}"
    submit(ben, page, f"{page}/decide", verdict="reject", digest=approval.digest, reason="not like this")
    assert job.refresh().state is State.REJECTED
    with signed_in(api, house, "read", "approve", name="eve") as browser:
        fields = {"verdict": "approve", "digest": approval.digest, "reason": "fine"}
        token = form_token(browser.get("/console"))
        second = browser.post(f"{page}/decide", data=fields | {"form_token": token})
    assert second.status_code == 409
    assert "rejected by ben: not like this" in second.text


def test_a_reader_is_not_offered_a_word(reader: httpx.Client, approval: Approval) -> None:
    page = f"/console/approvals/{approval.id}"
    shown = reader.get(page)
    assert "/decide" not in shown.text
    fields = {"verdict": "approve", "digest": approval.digest, "reason": "fine", "form_token": form_token(shown)}
    assert reader.post(f"{page}/decide", data=fields).status_code == 403


def test_something_else_is_asked_for_instead(ben: httpx.Client, house: House, job: Job, approval: Approval) -> None:
    page = f"/console/approvals/{approval.id}"
    offered = re.search(r'<textarea id="params"[^>]*>([^<]*)<', ben.get(page).text)
    assert offered is not None
    assert "500.0" in offered[1]
    params = offered[1].replace("&#34;", '"').replace("500.0", "50.0")
    done = submit(ben, page, f"{page}/edit", params=params, digest=approval.digest, reason="50 will do")
    assert "This is asked for instead." in done.text
    replaced = house.producer.approvals.get(approval.id).superseded_by
    assert replaced is not None
    assert house.producer.job(replaced).get(30) == 1
    assert job.refresh().state is State.CANCELLED


def test_it_is_taken_back(ben: httpx.Client, job: Job, approval: Approval) -> None:
    page = f"/console/approvals/{approval.id}"
    assert "its job cancelled" in submit(ben, page, f"{page}/withdraw", reason="never mind").text
    assert job.refresh().state is State.CANCELLED


def test_a_link_is_looked_at_without_deciding_and_decides_once(
    api: Api, house: House, job: Job, approval: Approval
) -> None:
    _, key = house.producer.keys.create("mailer", ["admin"], who="tests")
    made = api.client.post(
        f"/v1/approvals/{approval.id}/tokens",
        json={"verdict": "approve", "person": "ben"},
        headers={"Authorization": f"Bearer {key}"},
    )
    token = made.json()["token"]
    with browser_of(api) as browser:
        for _ in range(2):
            looked = browser.get("/console/link", params={"token": token})
            assert looked.status_code == 200
            assert "ben" in looked.text
            assert approval.digest in looked.text
        assert job.refresh().state is State.AWAITING_APPROVAL
        elsewhere = browser.post("/console/link", data={"token": token}, headers={"Sec-Fetch-Site": "cross-site"})
        assert elsewhere.status_code == 403
        done = browser.post("/console/link", data={"token": token, "reason": "from the train"})
        assert "Your word is recorded." in done.text
        assert job.get(30) == 1
        for again in (
            browser.post("/console/link", data={"token": token}),
            browser.get(f"/console/link?token={token}"),
        ):
            assert again.status_code == 403
        assert browser.get("/console/link?token=nonsense").status_code == 403
    assert token not in api.log.read_text()
