"""What policies let through, refuse, hold and ask people about: by real workers, which perform nothing unasked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from producer import Approval, JobFailed, Settings, State
from producer.job import Job
from producer.ledger.engine import open_engine
from tests.houses import ACTION_MODULES, House, house_of, start_worker, until
from tests.policy_actions import lines

SECONDS = 20.0


@pytest.fixture
def book(tmp_path: Path) -> str:
    return str(tmp_path / "book")


def asked(house: House, job: Job) -> Approval:
    """Wait until people are asked about a job; return what."""
    until(lambda: job.refresh().state is State.AWAITING_APPROVAL, seconds=SECONDS)
    return house.producer.approvals.of_job(job.id)[-1]


def approve(house: House, approval: Approval, by: str = "ben") -> None:
    house.producer.approvals.approve(approval.id, digest=approval.digest, by=by, reason="fine")


def said(job: Job) -> list[dict[str, Any]]:
    return [dict(event.data or {}) for event in job.events if event.kind == "policy"]


def alter(house: House, job: Job, old: str, new: str) -> None:
    """Change what is stored, as somebody with the database's password can."""
    engine = open_engine(house.settings.database_url, connections=1, name="tests")
    replace = "UPDATE decisions SET params = CAST(replace(CAST(params AS text), :old, :new) AS json) WHERE job_id = :id"
    with engine.connect() as connection:
        connection.execute(text(replace), {"id": job.id, "old": old, "new": new})
    engine.dispose()


def pay(house: House, book: str, amount: float, **params: Any) -> Job:
    return house.producer.enqueue(
        "gated.pay", {"book": book, "amount": amount, **params}, user_id="ada", agent_id="bot"
    )


def test_what_every_policy_lets_pass_is_performed_and_each_verdict_is_on_record(house: House, book: str) -> None:
    job = house.producer.enqueue("gated.open", {"book": book}, user_id="ada")
    assert job.get(SECONDS) == 1
    assert said(job) == [
        {"rule": "no-strangers", "version": 3, "verdict": "allow"},
        {
            "rule": "slow_but_fine",
            "version": 1,
            "verdict": "allow",
            "reason": "attempt 1 of gated.open for ada",
        },
    ]
    assert [event.kind for event in job.events] == ["accepted", "claimed", "policy", "policy", "intended", "succeeded"]


def test_what_a_policy_denies_is_not_performed_and_says_which_and_why(house: House, book: str) -> None:
    job = house.producer.enqueue("gated.open", {"book": book}, user_id="mallory")
    with pytest.raises(JobFailed, match=r"is failed: PolicyDenied: no-strangers \(version 3\): not for strangers"):
        job.get(SECONDS)
    assert (job.state, job.record.attempt, lines(book)) == (State.FAILED, 0, [])
    assert said(job) == [{"rule": "no-strangers", "version": 3, "verdict": "deny", "reason": "not for strangers"}]
    last = dict(job.events[-1].data or {})
    assert (last["why"], last["rule"]) == ("denied", "no-strangers")


def test_an_action_without_a_policy_is_asked_about_by_nobody(house: House) -> None:
    job = house.producer.enqueue("test.add", {"a": 1, "b": 2}, user_id="mallory")
    assert job.get(SECONDS) == {"total": 3}
    assert [event.kind for event in job.events] == ["accepted", "claimed", "intended", "succeeded"]


@pytest.mark.parametrize("how", ["raise", "exit", "nonsense", "none", "hang"])
def test_a_policy_that_goes_wrong_lets_nothing_pass_until_it_is_mended(house: House, book: str, how: str) -> None:
    mended = f"{book}.mended"
    job = house.producer.enqueue("gated.broken", {"book": book, "how": how, "mended": mended})
    until(lambda: job.refresh().record.waiting_for == "policy", seconds=SECONDS)
    last = said(job)[-1]
    assert (job.state, job.record.attempt, lines(book), last["rule"], last["verdict"]) == (
        State.WAITING,
        0,
        [],
        "goes_wrong",
        "error",
    )
    assert job.events[-1].kind == "held"
    assert dict(job.events[-1].data or {})["why"] == "policy failed"
    assert house.worker.events("policy.failed")
    Path(mended).touch()
    assert job.get(SECONDS) == 1
    assert lines(book) == [{"how": how, "mended": mended}]


def test_a_policy_cannot_alter_what_it_is_asked_about(house: House, book: str) -> None:
    job = house.producer.enqueue("gated.broken", {"book": book, "how": "alter"})
    assert job.get(SECONDS) == 1
    assert lines(book) == [{"how": "alter", "mended": ""}]


def test_a_job_that_is_cancelled_while_its_policy_is_broken_ends(house: House, book: str) -> None:
    job = house.producer.enqueue("gated.broken", {"book": book, "how": "raise"})
    until(lambda: job.refresh().record.waiting_for == "policy", seconds=SECONDS)
    assert job.cancel() == "cancelled"
    assert lines(book) == []


def test_what_needs_people_waits_for_them_with_a_preview_and_is_performed_once_when_they_approve(
    house: House, book: str
) -> None:
    job = pay(house, book, 250.0)
    approval = asked(house, job)
    assert (approval.reason, approval.preview, approval.preview_error, approval.excluded) == (
        "100 or more",
        {"account": "ada@example.com", "less": 250.0},
        None,
        ("ada", "bot"),
    )
    assert (approval.effect, approval.cost) == ("keyed", None)
    assert lines(book) == []
    approve(house, approval)
    assert job.get(SECONDS) == 1
    assert [line["amount"] for line in lines(book)] == [250.0]
    intended = next(event for event in job.events if event.kind == "intended")
    assert dict(intended.data or {})["approvals"] == [str(approval.id)]
    assert house.producer.approvals.get(approval.id).consumed_at is not None
    asked_again = [each["verdict"] for each in said(job) if each["rule"] == "large_sums"]
    assert asked_again == ["require_approval"]  # of the same attempt: said once


def test_a_preview_that_raises_is_told_and_people_may_still_decide(house: House, book: str) -> None:
    job = pay(house, book, 250.0, to="nobody@example.com")
    approval = asked(house, job)
    assert (approval.preview, approval.preview_error) == (None, "LookupError: there is no such account")
    house.producer.approvals.reject(approval.id, digest=approval.digest, by="eve", reason="no such account")
    with pytest.raises(JobFailed, match="is rejected"):
        job.get(SECONDS)
    assert lines(book) == []


def test_a_retry_goes_on_under_the_approval_that_its_job_began_under(house: House, book: str) -> None:
    job = pay(house, book, 250.0, fail=2)
    approve(house, asked(house, job))
    assert job.get(SECONDS) == 3
    assert [line["attempt"] for line in lines(book)] == [1, 2, 3]
    assert len(house.producer.approvals.of_job(job.id)) == 1


def test_two_people_with_a_role_are_needed_where_the_policy_says_so(house: House, book: str) -> None:
    for person in ("ben", "kim"):
        house.producer.roles.grant("finance", person)
    job = pay(house, book, 5_000.0)
    approval = asked(house, job)
    approve(house, approval, "ben")
    assert job.refresh().state is State.AWAITING_APPROVAL
    approve(house, approval, "kim")
    assert job.get(SECONDS) == 1


def test_what_may_have_happened_is_for_no_approver_any_more_but_in_doubt(house: House, book: str) -> None:
    job = house.producer.enqueue("gated.astray", {"book": book, "amount": 250.0})
    approve(house, asked(house, job))
    until(lambda: job.refresh().record.waiting_for == "retry", seconds=SECONDS)
    alter(house, job, "250.0", "999.0")
    until(lambda: job.refresh().state is State.IN_DOUBT, seconds=SECONDS)
    assert [line["amount"] for line in lines(book)] == [250.0]
    assert dict(job.events[-1].data or {})["why"] == "approval required"
    assert [each.state for each in house.producer.approvals.of_job(job.id)] == ["approved"]


@pytest.fixture
def gone(settings: Settings, tmp_path: Path) -> Iterator[House]:
    """A house whose worker ends, and others come."""
    with house_of(settings, tmp_path) as made:
        yield made


def test_the_wait_takes_no_worker_s_place_and_outlives_every_worker(gone: House, book: str) -> None:
    jobs = [pay(gone, book, 100.0 + number) for number in range(20)]
    approvals = [asked(gone, job) for job in jobs]
    assert gone.producer.enqueue("test.add", {"a": 1, "b": 2}).get(SECONDS) == {"total": 3}
    gone.worker.kill()
    for approval in approvals:
        approve(gone, approval)
    worker = start_worker(gone.settings, gone.folder / "second.log")
    try:
        assert [job.get(SECONDS) for job in jobs] == [1] * 20
    finally:
        worker.stop()
    assert sorted(line["amount"] for line in lines(book)) == [100.0 + number for number in range(20)]


def test_params_that_are_altered_after_the_approval_are_not_performed_but_asked_about_anew(
    gone: House, book: str
) -> None:
    job = pay(gone, book, 250.0)
    approval = asked(gone, job)
    gone.worker.stop()
    approve(gone, approval)
    alter(gone, job, "250.0", "999.0")
    worker = start_worker(gone.settings, gone.folder / "second.log")
    try:
        newer = asked(gone, job)
        assert (newer.id != approval.id, newer.digest != approval.digest, lines(book)) == (True, True, [])
        assert gone.producer.approvals.get(approval.id).state == "superseded"
    finally:
        worker.stop()


def test_a_policy_of_a_newer_version_asks_anew_what_an_older_one_was_answered(gone: House, book: str) -> None:
    job = pay(gone, book, 250.0)
    approval = asked(gone, job)
    gone.worker.stop()
    approve(gone, approval)
    worker = start_worker(gone.settings, gone.folder / "second.log", environment={"TEST_POLICY_VERSION": "2"})
    try:
        newer = asked(gone, job)
        assert (newer.rule_version, newer.state, gone.producer.approvals.get(approval.id).state) == (
            2,
            "pending",
            "superseded",
        )
        assert lines(book) == []
        approve(gone, newer, "kim")
        assert job.get(SECONDS) == 1
    finally:
        worker.stop()


def test_what_nobody_decides_in_time_expires_and_is_never_performed(
    settings: Settings, tmp_path: Path, book: str
) -> None:
    with house_of(settings, tmp_path, environment={"TEST_EXPIRES": "0.5"}) as house:
        job = pay(house, book, 250.0)
        with pytest.raises(JobFailed, match="is expired"):
            job.get(SECONDS)
        assert (job.events[-1].kind, lines(book)) == ("approval_expired", [])
        until(lambda: house.worker.events("approval.expired"))


def test_a_worker_that_dies_between_the_approval_and_the_effect_loses_nothing(gone: House, book: str) -> None:
    job = pay(gone, book, 250.0)
    approval = asked(gone, job)
    approve(gone, approval)
    gone.worker.kill()
    worker = start_worker(gone.settings, gone.folder / "second.log")
    try:
        assert job.wait(SECONDS).state is State.SUCCEEDED
    finally:
        worker.stop()
    assert len(gone.producer.approvals.of_job(job.id)) == 1


@pytest.mark.parametrize(
    "dies",
    [
        pytest.param("review.before", id="before what policies said is on record"),
        pytest.param("review.committed", id="it is, and the worker has not heard"),
        pytest.param("ask.before", id="before people are asked"),
        pytest.param("ask.committed", id="people are asked, and the worker has not heard"),
        pytest.param("consume.before", id="before the approval is used up with the intent"),
        pytest.param("consume.committed", id="it is used up, and the worker has not heard"),
    ],
)
def test_a_worker_that_dies_on_the_way_through_an_approval_asks_once_and_performs_once(
    settings: Settings, tmp_path: Path, book: str, dies: str
) -> None:
    modules = ",".join((*ACTION_MODULES, "tests.policy_deaths"))
    deadly = {"SUREFOOT_ACTION_MODULES": modules, "POLICY_DIES": dies, "POLICY_DIED": str(tmp_path / "died")}
    with house_of(settings, tmp_path, environment=deadly) as own:
        job = pay(own, book, 250.0)
        if dies.startswith("consume"):
            approve(own, asked(own, job))
        until(lambda: own.worker.process.poll() is not None)
        other = start_worker(settings, tmp_path / "other.log")
        try:
            if not dies.startswith("consume"):
                approve(own, asked(own, job))
            assert job.wait(SECONDS).state is State.SUCCEEDED
        finally:
            other.stop()
        (approval,) = own.producer.approvals.of_job(job.id)
        assert approval.consumed_at is not None
        assert [line["amount"] for line in lines(book)] == [250.0]
        assert [event.kind for event in job.refresh().events].count("approval_requested") == 1
        requires = [each for each in said(job) if each["rule"] == "large_sums"]
        # An intent spends an attempt, and each attempt is asked about.
        assert len(requires) == (2 if dies == "consume.committed" else 1)
