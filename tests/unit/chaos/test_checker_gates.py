"""I20: what ran unapproved, and approvals used twice or not at all. I21: reservations lost, doubled or left open."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.chaos.story import JobStory, Story
from tests.unit.chaos.verdicts import broken, findings, judged, the_finding


def story() -> Story:
    return Story(expect_faults=False)


def approved(told: Story) -> JobStory:
    return told.accepted("chaos.approved").claimed().asks().decided("approved").claimed()


def reserved(told: Story) -> JobStory:
    return told.accepted("chaos.budgeted").claimed().reserves().intended()


def all_found(told: Story, invariant: str) -> list[str]:
    return [f"{found.expected} / {found.found}" for found in findings(told, invariant)]


def test_a_job_that_ran_under_its_approval_is_in_order() -> None:
    told = story()
    approved(told).intended().uses(told.approvals[0]).requested().settled()
    assert (broken(told), judged(told, "I20")) == (set(), 1)


def test_a_job_that_ran_although_nobody_was_asked_is_found() -> None:
    told = story()
    told.accepted("chaos.approved").claimed().intended().requested().settled()
    assert the_finding(told, "I20") == "an approval before every attempt / none"


def test_an_attempt_that_names_no_approval_is_found() -> None:
    told = story()
    approved(told).intended().requested().settled()
    assert all_found(told, "I20") == [
        "an approval before every attempt / none named",
        "one approval used up for each policy that asks / 0",
    ]


def test_an_approval_of_another_job_is_found() -> None:
    told = story()
    approved(told).intended().uses(told.approvals[0]).requested().settled()
    approved(told).intended().uses(told.approvals[0]).requested().settled()
    assert f"approvals of the job, used up / {told.approvals[0]['id']} is none" in all_found(told, "I20")


def test_an_approval_that_is_not_used_up_is_found() -> None:
    told = story()
    approved(told).intended().uses(told.approvals[0]).requested().settled()
    told.approvals[0]["consumed_at"] = None
    assert all_found(told, "I20") == [
        f"approvals of the job, used up / {told.approvals[0]['id']} is none",
        "one approval used up for each policy that asks / 0",
    ]


def test_an_approval_that_is_used_up_after_the_request_is_found() -> None:
    told = story()
    approved(told).intended().uses(told.approvals[0]).requested().settled()
    told.approvals[0]["consumed_at"] = told.now
    assert the_finding(told, "I20").startswith("an approval that is given, then used up, and then acted on / approved")


def test_an_approval_that_is_used_up_by_a_job_that_has_not_begun_is_found() -> None:
    told = story()
    approved(told)
    told.approvals[0]["consumed_at"] = told.now
    assert the_finding(told, "I20") == "no approval used up by a job that has not begun / 1"


def test_a_question_that_is_asked_twice_is_found() -> None:
    told = story()
    approved(told).asks().decided("approved").claimed().intended().uses(told.approvals[1]).requested().settled()
    assert the_finding(told, "I20") == "people asked once for ask / 2 times"


def test_a_job_that_nobody_approved_and_that_was_asked_for_all_the_same_is_found() -> None:
    told = story()
    told.accepted("chaos.approved").claimed().asks().decided("rejected").requested(attempt=1)
    assert the_finding(told, "I20") == "no request of a job that nobody approved / it was asked"


def test_what_an_attempt_reserved_and_settled_is_in_order() -> None:
    told = story()
    reserved(told).requested().spends().settled()
    assert (broken(told), judged(told, "I21")) == (set(), 2)


def test_an_attempt_that_reserved_nothing_is_found() -> None:
    told = story()
    told.accepted("chaos.budgeted").claimed().intended().requested().settled()
    assert "one reservation for the attempt under fence 1 / 0 on record, 0 kept" in all_found(told, "I21")


def test_a_reservation_that_is_not_settled_with_its_outcome_is_found() -> None:
    told = story()
    reserved(told).requested().settled()
    assert the_finding(told, "I21") == "what was reserved under fence 1 is settled with its outcome / it is not"


def test_a_reservation_that_is_settled_twice_is_found() -> None:
    told = story()
    reserved(told).requested().spends().spends().settled()
    assert "what was reserved under fence 1 is settled once / settled 2 times" in all_found(told, "I21")


def test_a_reservation_without_an_attempt_is_found() -> None:
    told = story()
    told.accepted("chaos.budgeted").claimed().reserves().parked("rate").claimed().reserves().intended().requested()
    told.jobs[0].spends().settled()
    assert "no reservation without an attempt / one under fence 1" in all_found(told, "I21")


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("reserved_usd", "0.25", "0 usd reserved of chaos, as its attempts have it / 0.25"),
        ("reserved_calls", -1, "0 calls reserved of chaos, as its attempts have it / -1"),
        ("spent_usd", "0.2", "0.1 usd spent of chaos, as its attempts have it / 0.2"),
        ("spent_calls", 2, "1 calls spent of chaos, as its attempts have it / 2"),
    ],
)
def test_a_share_that_is_not_the_sum_of_its_attempts_is_found(column: str, value: Any, said: str) -> None:
    told = story()
    reserved(told).requested().spends().settled()
    assert told.account is not None
    told.account[column] = value
    assert the_finding(told, "I21") == said
